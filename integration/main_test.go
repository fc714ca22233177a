// Package integration tests the larder binary from outside against real parts:
// containerd, a distribution registry, a scripted registry that misbehaves, and
// the OCI conformance suite. It needs root, and what `make build tools` builds.
package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/internal/disks"
)

// TestMain fails the run when it leaves anything behind: a child, a mount, a
// loop device, a folder.
func TestMain(m *testing.M) {
	if spec := os.Getenv(clientsEnv); spec != "" {
		os.Exit(beClients(spec))
	}
	base, err := os.MkdirTemp("", "lt-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// All private folders of this run are made below it, so that two runs on one
	// machine do not see each other's.
	_ = os.Setenv("TMPDIR", base)
	code := m.Run()
	for _, left := range leftovers(base) {
		fmt.Fprintln(os.Stderr, "integration: left behind:", left)
		code = 1
	}
	_ = os.RemoveAll(base)
	os.Exit(code)
}

func leftovers(base string) []string {
	var left []string
	entries, _ := os.ReadDir(base)
	for _, e := range entries {
		left = append(left, "folder "+filepath.Join(base, e.Name()))
	}
	left = append(left, disks.Leftovers(base)...)
	// A part's command line or environment names its private folder; shims that
	// were given to init are found this way too.
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		cmdline, err := os.ReadFile(p)
		if err == nil && strings.Contains(string(cmdline), base) {
			left = append(left, "process "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return left
}
