package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/larder-project/larder/plugin/internal/ownfile"
)

// Finding is something that keeps containerd from using larder's files as intended.
type Finding struct {
	// Path is the file or folder that it is about.
	Path string `json:"path"`
	// Problem says in one line what is so and what follows.
	Problem string `json:"problem"`
	// Fix says what to do; it may have several lines.
	Fix string `json:"fix"`
}

// Inspect looks for other managers of the folder certsDir and for registry hosts that go past larder. It changes
// nothing; a folder that does not exist has no findings.
func Inspect(dir string) ([]Finding, error) {
	if dir == "" {
		dir = DefaultCertsDir
	}
	dir = filepath.Clean(dir)
	var found []Finding
	if strings.HasPrefix(dir, "/var/lib/rancher/") {
		found = append(found, Finding{
			Path:    dir,
			Problem: "k3s and RKE2 write this folder themselves at each start, so larder's files will not last",
			Fix:     "name the mirror in /etc/rancher/k3s/registries.yaml or /etc/rancher/rke2/registries.yaml instead, and restart the service",
		})
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return found, nil
	}
	if err != nil {
		return found, ownfile.Explain(dir, err)
	}
	defer root.Close()
	c := &certsDir{root: root, path: dir}
	names, err := c.folders()
	if err != nil {
		return found, err
	}
	for _, name := range names {
		if name == "_backup" {
			found = append(found, Finding{
				Path:    c.abs(name),
				Problem: "Spegel moves all of certs.d into this folder when its pod starts, and larder's files with it",
				Fix:     "run only one of the two on a node, or set spegel.prependExisting=true in Spegel's chart and run this command again after it",
			})
			continue
		}
		e, err := c.look(name)
		if err != nil || e.mark.ours {
			continue // Plan and Apply tell of a folder that cannot be used
		}
		found = append(found, Finding{
			Path:    c.abs(name),
			Problem: fmt.Sprintf("%s has a folder of its own, so its pulls go past larder", hostOfDirectory(name)),
			Fix:     fmt.Sprintf("to have larder in front there too, add: --registry %s", hostOfDirectory(name)),
		})
	}
	return found, nil
}
