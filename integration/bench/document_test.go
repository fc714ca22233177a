package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/bench/figures"
)

func TestDocument(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	doc := filepath.Join(dir, "performance.md")
	if err := os.WriteFile(doc, []byte("before\n"+markBegin+"old\n"+markEnd+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	report := &figures.Report{Command: "make bench"}
	for range 2 { // the second run finds what the first has written
		if err := write(report, options{report: filepath.Join(dir, "bench"), document: doc}, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	got := string(text)
	if !strings.HasPrefix(got, "before\n"+markBegin+"![ratios](performance.svg)\n\n`make bench`") || !strings.HasSuffix(got, markEnd+"after\n") || strings.Contains(got, "old") || strings.Count(got, markBegin) != 1 {
		t.Errorf("the document:\n%s", got)
	}
	for _, name := range []string{"performance.json", "performance.svg", "bench/figures.md", "bench/figures.json", "bench/figures.svg"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	grows := figures.Growth{Measure: "time", Unit: "ms", Of: "blobs"}
	grows.Add(figures.Larder, 1, 1)
	for _, name := range []string{"performance-growth.svg", "bench/growth.svg"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s: is there without a curve", name)
		}
	}
	report.Experiments = []figures.Experiment{{Name: "growth", Growth: []figures.Growth{grows}}}
	report.Finish()
	if err := write(report, options{report: filepath.Join(dir, "bench"), document: doc}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(doc); err != nil || !strings.Contains(string(text), "![ratios](performance.svg)\n\n![growth](performance-growth.svg)\n\n`make bench`") {
		t.Errorf("the document with a curve: %v\n%s", err, text)
	}
	for _, name := range []string{"performance-growth.svg", "bench/growth.svg"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(doc, []byte("no marks\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := write(report, options{document: doc}, io.Discard); err == nil {
		t.Error("a document without marks: no error")
	}
}
