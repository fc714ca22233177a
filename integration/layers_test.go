package integration

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
)

const module = "github.com/larder-project/larder"

// mayImport is the import table of ARCHITECTURE.md: what each package may use of
// larder, itself and packages below it included. A package without an entry may
// use nothing. Tests of a package may use the test helpers too.
func mayImport() map[string][]string {
	return map[string][]string{
		"cache":             {"cache/descriptors"},
		"cache/descriptors": {},
		"cache/lifecycle":   {},
		"remotes/upstream":  {"cache/descriptors", "remotes/upstream/ranged"},
		// Knows no HTTP and no registries: bytes in order, from parts.
		"remotes/upstream/ranged": {},
		// An entry of its own: what talks to registries does not know who finds
		// their credentials, and what pulls through does not either.
		"remotes/upstream/credentials": {"remotes/upstream"},
		"remotes":                      {"cache", "cache/lifecycle", "remotes/upstream"},
		"plugin/mirror":                {"remotes", "cache"},
		"plugin/seed":                  {"remotes", "cache"},
		"plugin/internal/ownfile":      {},
		"plugin/hosts":                 {"plugin/internal/ownfile"},
		"plugin/containerdconf":        {"plugin/internal/ownfile", "plugin/takeover"},
		"plugin/takeover":              {"cache"},
		"plugin/cri":                   {},
		"plugin/unpack":                {},
		"plugin/proxy":                 {"cache", "plugin/unpack"},
		"plugin/builtin":               {"cache", "plugin/proxy", "plugin/unpack"},
		"cmd/larder":                   {"cache", "cache/lifecycle", "remotes", "remotes/upstream", "remotes/upstream/credentials", "plugin/mirror", "plugin/hosts", "plugin/containerdconf", "plugin/takeover", "plugin/cri", "plugin/proxy", "plugin/seed", "plugin/unpack", "cmd/larder"},
		"integration":                  {"remotes/remotestest", "integration"},
		// larder as a library, in a program of others.
		"integration/library": {"cache", "remotes", "remotes/upstream", "plugin/cri", "remotes/remotestest", "integration"},
		// Used by tests only; held to nothing of larder.
		"remotes/remotestest":      {},
		"cache/disktest":           {"cache"},
		"plugin/unpack/unpacktest": {},
	}
}

func testHelpers() []string {
	return []string{"remotes/remotestest", "cache/disktest", "plugin/unpack/unpacktest"}
}

// listed is what `go list -json` tells of a package.
type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func TestImportsKeepTheLayers(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		layer, allowed := rule(strings.TrimPrefix(p.ImportPath, module+"/"))
		if layer == "" {
			t.Errorf("%s: not in the package table of ARCHITECTURE.md", p.ImportPath)
			continue
		}
		for _, bad := range outside(p.Imports, layer, allowed) {
			t.Errorf("%s imports %s: layer %s may import only %v", p.ImportPath, bad, layer, allowed)
		}
		tests := append(slices.Clone(p.TestImports), p.XTestImports...)
		wiring := append(testHelpers(), below(allowed)...)
		for _, bad := range outside(tests, layer, wiring) {
			t.Errorf("a test of %s imports %s: tests of layer %s may import only %v", p.ImportPath, bad, layer, wiring)
		}
	}
}

// below are the layers and what they stand on: a test wires the real parts that
// its package is handed ready-made.
func below(layers []string) []string {
	all := slices.Clone(layers)
	for _, l := range layers {
		all = append(all, mayImport()[l]...)
	}
	return all
}

// Product code that links a test helper would ship it.
func TestBinaryHoldsNoTestHelpers(t *testing.T) {
	t.Parallel()
	out, err := goCommand(t, "list", "-deps", "./cmd/larder").Output()
	if err != nil {
		t.Fatal(describe(err))
	}
	for dep := range strings.FieldsSeq(string(out)) {
		if dep == "testing" || strings.HasPrefix(dep, module+"/integration") || slices.Contains(testHelpers(), strings.TrimPrefix(dep, module+"/")) {
			t.Errorf("cmd/larder links %s", dep)
		}
	}
}

func packages(t *testing.T) []listed {
	t.Helper()
	out, err := goCommand(t, "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...").Output()
	if err != nil {
		t.Fatal(describe(err))
	}
	var all []listed
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 5 {
		t.Fatalf("go list knows only %d packages", len(all))
	}
	return all
}

// rule is the longest layer of the table that holds the package.
func rule(pkg string) (layer string, allowed []string) {
	for l, a := range mayImport() {
		if within(pkg, l) && len(l) > len(layer) {
			layer, allowed = l, a
		}
	}
	return layer, allowed
}

// outside are the imports of this module that neither the layer itself nor an
// allowed one holds.
func outside(imports []string, layer string, allowed []string) []string {
	var bad []string
	for _, imp := range imports {
		pkg, ours := strings.CutPrefix(imp, module+"/")
		if !ours {
			continue
		}
		if of, _ := rule(pkg); of != layer && !slices.Contains(allowed, of) {
			bad = append(bad, pkg)
		}
	}
	return bad
}

func within(pkg, layer string) bool { return pkg == layer || strings.HasPrefix(pkg, layer+"/") }

func goCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = repository(t)
	return cmd
}

// repository is the folder of the sources.
func repository(t *testing.T) string {
	t.Helper()
	bin, err := parts.FindBin()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(string(bin))
}

func describe(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return err.Error() + ": " + string(exit.Stderr)
	}
	return err.Error()
}
