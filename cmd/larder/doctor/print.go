package doctor

import (
	"fmt"
	"io"
	"strings"
)

// Print writes the report for a person: a line for each result, its remedy
// indented below, and a line that counts.
func (r Report) Print(w io.Writer) error {
	status, check := len("STATUS"), len("CHECK")
	for _, res := range r.Checks {
		status, check = max(status, len(res.Status)), max(check, len(res.Check))
	}
	line := func(a, b, c string) {
		fmt.Fprintf(w, "%-*s   %-*s   %s\n", status, a, check, b, c)
	}
	line("STATUS", "CHECK", "FOUND")
	for _, res := range r.Checks {
		line(string(res.Status), res.Check, res.Found)
		if res.Remedy == "" {
			continue
		}
		for text := range strings.SplitSeq(res.Remedy, "\n") {
			fmt.Fprintf(w, "%*s%s\n", status+check+8, "", text)
		}
	}
	_, err := fmt.Fprintf(w, "\n%s, %s, %d unknown\n", count(r.Problems, "problem"), count(r.Warnings, "warning"), r.Unknown)
	return err
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
