package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCatalogueIsComplete: docs/reliability.md has every fault once, and names for
// it a test that exists, or says that it is open, or cannot apply, and why.
func TestCatalogueIsComplete(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(repository(t), "docs", "reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := testFuncs(t)
	rows := map[string]int{}
	open := 0
	id := regexp.MustCompile(`^[A-E][0-9]+$`)
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if !id.MatchString(cells[0]) {
			continue
		}
		rows[cells[0]]++
		if len(cells) != 5 {
			t.Errorf("%s: %d columns, want 5", cells[0], len(cells))
			continue
		}
		names := named.FindAllString(cells[4], -1)
		for _, name := range names {
			if tests[name] == nil {
				t.Errorf("%s names %s, which is no test", cells[0], name)
			}
		}
		isOpen, cannot := strings.HasPrefix(cells[4], "Open"), strings.HasPrefix(cells[4], "Cannot apply: ")
		if isOpen || strings.Contains(cells[4], "Open: ") {
			open++
		}
		if len(names) == 0 && !isOpen && !cannot {
			t.Errorf("%s names no test, and is neither open nor impossible", cells[0])
		}
		if !isOpen && !cannot && (cells[2] == "" || cells[3] == "") {
			t.Errorf("%s does not say how it was injected, or what was seen", cells[0])
		}
	}
	want := 0
	for letter, n := range map[string]int{"A": 20, "B": 17, "C": 13, "D": 21, "E": 13} {
		want += n
		for i := range n {
			if row := fmt.Sprintf("%s%d", letter, i+1); rows[row] != 1 {
				t.Errorf("%s stands %d times in the catalogue, want once", row, rows[row])
			}
		}
	}
	if len(rows) != want {
		t.Errorf("%d rows, want %d", len(rows), want)
	}
	t.Logf("%d rows, %d of them open in whole or in part", len(rows), open)
}
