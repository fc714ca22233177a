package containerdconf

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// Mode is what larder is for containerd.
type Mode string

// The modes.
const (
	// Mirror: containerd asks larder's mirror first. Its own configuration names a folder, and nothing of larder.
	Mirror Mode = "mirror"
	// MirrorDiff: larder unpacks layers, too. containerd keeps its own content store.
	MirrorDiff Mode = "mirror+diff"
	// Proxy: larder is containerd's content store, and unpacks layers.
	Proxy Mode = "proxy"
)

// Modes are all of them.
func Modes() []Mode { return []Mode{Mirror, MirrorDiff, Proxy} }

// ParseMode reads a Mode, or returns errdefs.ErrInvalidArgument.
func ParseMode(text string) (Mode, error) {
	var all []string
	for _, m := range Modes() {
		if text == string(m) {
			return m, nil
		}
		all = append(all, string(m))
	}
	return "", fmt.Errorf("mode %q: want %s: %w", text, strings.Join(all, ", "), errdefs.ErrInvalidArgument)
}
