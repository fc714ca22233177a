package integration

import (
	"bytes"
	"os"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
)

// TestBinaryHasNoTemplates looks for what calls methods by name. With it the linker
// keeps every method of everything, since any could be called, and the daemon has a
// part of that in memory.
func TestBinaryHasNoTemplates(t *testing.T) {
	t.Parallel()
	bin, err := parts.FindBin()
	if err == nil {
		err = bin.Need("larder")
	}
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(bin.Path("larder"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("larder has %.1f MB", float64(len(program))/1e6)
	if bytes.Contains(program, []byte("text/template.(*Template).Execute")) {
		t.Error("larder links text/template: see GOFLAGS in the Makefile")
	}
}
