package unpacktest

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// Figures are how long several took for the same, in rounds that each had all of
// them.
type Figures struct {
	names  []string
	rounds map[string][]float64 // seconds
}

// Add notes how long one took in this round.
func (f *Figures) Add(name string, seconds float64) {
	if f.rounds == nil {
		f.rounds = map[string][]float64{}
	}
	if _, ok := f.rounds[name]; !ok {
		f.names = append(f.names, name)
	}
	f.rounds[name] = append(f.rounds[name], seconds)
}

// Table has a line for each: seconds, and how much of what base took in the same
// round; each as minimum, median and maximum. It has none if base was not there.
func (f *Figures) Table(base string) string {
	if len(f.rounds[base]) == 0 {
		return ""
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\tseconds\tof %s\n", base)
	for _, name := range slices.Sorted(slices.Values(f.names)) {
		var ratios []float64
		for i, seconds := range f.rounds[name] {
			ratios = append(ratios, seconds/f.rounds[base][i])
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", name, spread(f.rounds[name]), spread(ratios))
	}
	_ = w.Flush() // into memory
	return b.String()
}

func spread(values []float64) string {
	values = slices.Sorted(slices.Values(values))
	return fmt.Sprintf("%.2f / %.2f / %.2f", values[0], values[len(values)/2], values[len(values)-1])
}
