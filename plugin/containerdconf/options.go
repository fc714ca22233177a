package containerdconf

import (
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// Options say what containerd's configuration has to be.
type Options struct {
	// Config is containerd's main file.
	Config string
	// Program is containerd's executable; "" is DefaultProgram.
	Program string
	// Mode is MirrorDiff or Proxy.
	Mode Mode
	// Socket is where larder serves containerd.
	Socket string
	// CertsDir is the folder of hosts.toml files, for a containerd that has none configured.
	CertsDir string
	// Force overwrites what was changed by hand.
	Force bool
	// Forget has containerd lose the content that it has where the new mode does not look.
	Forget bool
}

func (o Options) applyDefaultsAndValidate() (Options, error) {
	if o.Program == "" {
		o.Program = DefaultProgram
	}
	for _, p := range []string{o.Config, o.Socket, o.CertsDir} {
		if !filepath.IsAbs(p) {
			return o, fmt.Errorf("%q: want an absolute path: %w", p, errdefs.ErrInvalidArgument)
		}
	}
	if o.Mode != MirrorDiff && o.Mode != Proxy {
		return o, fmt.Errorf("mode %q has no place in containerd's configuration: %w", o.Mode, errdefs.ErrInvalidArgument)
	}
	return o, nil
}

// Action is what was done to a file.
type Action string

// The actions.
const (
	ActionCreated   Action = "created"
	ActionUpdated   Action = "updated"
	ActionUnchanged Action = "unchanged"
	ActionRemoved   Action = "removed"
	ActionRestored  Action = "restored" // it is as it was before larder
	ActionLeft      Action = "left"     // others need it as it is; Change.Why says how
)

// Change is what was done to one file.
type Change struct {
	Path   string `json:"path"`
	Action Action `json:"action"`
	// Backup is the second name of the file as it was before.
	Backup string `json:"backup,omitempty"`
	Why    string `json:"why,omitempty"`
}

// File is one that Apply writes. Of a file of others, Content is the line that is added.
type File struct {
	Path    string `json:"path"`
	Action  Action `json:"action"`
	Content string `json:"content"`
}
