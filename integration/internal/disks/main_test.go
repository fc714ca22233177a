package disks

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the run when a mount, a loop device or a goroutine is left.
// (TestNothingIsLeft is what is looked at here.)
func TestMain(m *testing.M) {
	base, err := os.MkdirTemp("", "ld-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = os.Setenv("TMPDIR", base)
	code := m.Run()
	for _, left := range Leftovers(base) {
		fmt.Fprintln(os.Stderr, "disks: left behind:", left)
		code = 1
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, strings.TrimSpace(err.Error()))
		code = 1
	}
	_ = os.RemoveAll(base)
	os.Exit(code)
}
