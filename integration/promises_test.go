package integration

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// named matches the names of tests as a doc.go has them.
var named = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)

// TestPromisesNameTests: a doc.go names the tests that show its promises. Each
// is one of a package at or below the one that promises.
func TestPromisesNameTests(t *testing.T) {
	t.Parallel()
	tests := testFuncs(t)
	root, promises := repository(t), 0
	for _, pkg := range packages(t) {
		dir := strings.TrimPrefix(strings.TrimPrefix(pkg.ImportPath, module), "/")
		text, err := os.ReadFile(filepath.Join(root, dir, "doc.go"))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range named.FindAllString(string(text), -1) {
			promises++
			if !slices.ContainsFunc(tests[name], func(in string) bool { return within(in, dir) }) {
				t.Errorf("%s/doc.go names %s, which is no test there; it is one of %v", dir, name, tests[name])
			}
		}
	}
	if promises < 100 {
		t.Errorf("%d names of tests found: this one shows nothing", promises)
	}
}

// testFuncs are all tests of the repository: the folders that have one of a name.
func testFuncs(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, pkg := range packages(t) {
		dir := strings.TrimPrefix(strings.TrimPrefix(pkg.ImportPath, module), "/")
		files, err := filepath.Glob(filepath.Join(repository(t), dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			for _, name := range funcsOf(t, file) {
				all[name] = append(all[name], dir)
			}
		}
	}
	return all
}

// funcsOf are the names of a file's tests.
func funcsOf(t *testing.T, file string) (names []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte("testing")) {
		return nil
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, decl := range parsed.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && named.MatchString(f.Name.Name) {
			names = append(names, f.Name.Name)
		}
	}
	return names
}
