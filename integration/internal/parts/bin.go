package parts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Bin is the folder with the built programs: larder, containerd, ctr,
// containerd-shim-runc-v2, registry and conformance; and of 1.7 and 1.6
// containerd-1.7, ctr-1.7, 1.7/containerd-shim-runc-v2 and so on.
type Bin string

// FindBin returns the module's bin folder, looking upwards from the working
// directory for go.mod. It does not check that anything was built.
func FindBin() (Bin, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find bin: %w", err)
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return Bin(filepath.Join(dir, "bin")), nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find bin: no go.mod above %s", wd)
		}
	}
}

// Path is where the program name is or would be.
func (b Bin) Path(name string) string { return filepath.Join(string(b), name) }

// Need tells which of the named programs were not built yet, and how to.
func (b Bin) Need(names ...string) error {
	var errs []error
	for _, name := range names {
		if _, err := os.Stat(b.Path(name)); err != nil {
			errs = append(errs, fmt.Errorf("%s: not built, run `make build tools` first: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// searchPath is PATH with the bin folder first, for programs that start others, and
// before it the folder of what an older release of containerd starts.
func (b Bin) searchPath(release string) string {
	path := string(b) + string(os.PathListSeparator) + os.Getenv("PATH")
	if release != "" {
		path = filepath.Join(string(b), release) + string(os.PathListSeparator) + path
	}
	return "PATH=" + path
}

// TempDir makes a private folder with a short path: a unix socket's path may
// not be longer than 107 bytes, and testing.T.TempDir repeats the test's name.
func TempDir() (string, error) {
	dir, err := os.MkdirTemp("", "larder-")
	if err != nil {
		return "", fmt.Errorf("make a private folder: %w", err)
	}
	return dir, nil
}
