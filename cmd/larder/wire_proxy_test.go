package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestServesWithoutCopies: a folder of copies that cannot be read costs speed, and
// not containerd its content: the daemon starts.
func TestServesWithoutCopies(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "larder") // short: a unix socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "proxy.sock")
	d := startDaemon(t, fmt.Sprintf("[proxy]\nenabled = true\nsocket = %q\ncontainerd = %q\n", socket, filepath.Join(dir, "none.sock")))
	if code := d.stop(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	root := filepath.Join(filepath.Dir(d.config), "store")
	if err := os.WriteFile(filepath.Join(root, "copies"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.run(t)
	if out := d.mustLarder(t, "status"); !strings.Contains(out, "proxy "+socket+", content and diff\n") {
		t.Errorf("status:\n%s", out)
	}
}
