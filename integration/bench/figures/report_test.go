package figures

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// sample is a report with a row of each kind.
func sample() *Report {
	speed := Row{Measure: "1 stream", Unit: "GiB/s", Better: More, Base: "nginx", Goal: Goal{Of: "nginx", Bound: 1}}
	for round, nginx := range []float64{1, 2, 4} {
		speed.Add("nginx", nginx)
		speed.Add(Larder, nginx*[]float64{1.5, 1, 2}[round])
	}
	memory := Row{Measure: "memory", Unit: "MiB", Better: Less, Goal: Goal{Bound: 64}}
	memory.Add(Larder, 1234)
	return &Report{Machine: "a machine", Version: "v1", Date: "today", Command: "make bench", Rounds: 3, Experiments: []Experiment{
		{Name: "warm", About: "How.", Notes: []string{"a note\nof two lines"}, Rows: []Row{speed}},
		{Name: "memory", About: "What.", Failed: "a <reason>", Rows: []Row{memory}},
	}}
}

// Each round's ratio by itself: 1.5, 1, 2. The ratio of the medians would be 1.
func TestRatiosStayInTheirRound(t *testing.T) {
	t.Parallel()
	r := sample()
	r.Finish()
	if got, want := *r.Experiments[0].Rows[0].line(Larder).Ratio, (Spread{Min: 1, Median: 1.5, Max: 2}); got != want {
		t.Errorf("ratio: got %v, want %v", got, want)
	}
	if got := ratios([]float64{3, 4, 5}, []float64{0, 2}); len(got) != 1 || got[0] != 2 {
		t.Errorf("ratios where base has a 0, and a round less: got %v, want [2]", got)
	}
}

func TestSpread(t *testing.T) {
	t.Parallel()
	for text, values := range map[string][]float64{
		"7": {7}, "1 / 2 / 3": {3, 1, 2}, "1 / 2.5 / 4": {4, 1, 3, 2}, "0.00123 / 0.0123 / 1,234,567": {0.00123, 0.01234, 1234567},
		"99.9 / 100 / 1,000": {99.9, 100.4, 1000}, "0": {0, 0}, "-1,500 / 10 / 20": {-1500, 10, 20},
	} {
		if got := SpreadOf(values).String(); got != text {
			t.Errorf("%v: got %q, want %q", values, got, text)
		}
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		better Direction
		goal   Goal
		values map[string][]float64
		want   string
	}{
		{"ratio met", Less, Goal{Of: "a", Bound: 0.5}, map[string][]float64{"a": {2, 4}, Larder: {1, 2}}, "met"},
		{"ratio missed", Less, Goal{Of: "a", Bound: 0.49}, map[string][]float64{"a": {2, 4}, Larder: {1, 2}}, "missed"},
		{"more is better", More, Goal{Of: "a", Bound: 0.5}, map[string][]float64{"a": {2, 4}, Larder: {1, 2}}, "met"},
		{"bound in the row's unit", Less, Goal{Bound: 3}, map[string][]float64{Larder: {1, 2, 9}}, "met"},
		{"no goal", Less, Goal{}, map[string][]float64{Larder: {1}}, ""},
		{"larder has no value", Less, Goal{Bound: 1}, map[string][]float64{"a": {1}}, ""},
		{"the other has none", Less, Goal{Of: "a", Bound: 1}, map[string][]float64{Larder: {1}}, ""},
	} {
		row := Row{Better: tc.better, Goal: tc.goal}
		for who, values := range tc.values {
			for _, v := range values {
				row.Add(who, v)
			}
		}
		if got := row.verdict(); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	r, again := sample(), sample()
	r.Finish()
	again.Finish()
	table := written(t, r.WriteMarkdown)
	for _, want := range []string{
		"| 1 stream, GiB/s | nginx | 1 / 2 / 4 |  |  |\n",
		"|  | larder | 1.5 / 2 / 8 | 1 / 1.5 / 2 of nginx | at least 1 of nginx: met |\n",
		"| memory, MiB | larder | 1,234 |  | at most 64 MiB: missed |\n",
		"**Failed:** a <reason>\n", "- a note of two lines\n",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
	var back Report
	if err := json.Unmarshal([]byte(written(t, r.WriteJSON)), &back); err != nil || back.Experiments[0].Rows[0].Lines[1].Ratio.Median != 1.5 {
		t.Errorf("JSON read back: %v, %+v", err, back)
	}
	drawing := written(t, r.WritePlot)
	for _, want := range []string{"warm, 1 stream", "larder", "1.5 (2 GiB/s)", "stroke-dasharray"} {
		if !strings.Contains(drawing, want) {
			t.Errorf("the plot lacks %q:\n%s", want, drawing)
		}
	}
	wellFormed(t, drawing)
	for name, write := range map[string][2]func(io.Writer) error{
		"table": {r.WriteMarkdown, again.WriteMarkdown}, "JSON": {r.WriteJSON, again.WriteJSON}, "plot": {r.WritePlot, again.WritePlot},
	} {
		if written(t, write[0]) != written(t, write[1]) {
			t.Errorf("%s: the same figures twice differ", name)
		}
	}
	if got := r.Failed(); len(got) != 1 || got[0] != "memory" {
		t.Errorf("failed: got %v, want [memory]", got)
	}
}

// A plot of rows that have no ratio is an empty one, and what is named strangely does
// not break it.
func TestPlotOfLittle(t *testing.T) {
	t.Parallel()
	r := sample()
	r.Experiments[0].Name = `a < b & "c"`
	r.Experiments[0].Rows[0].Add("only <once>", 0)
	r.Finish()
	wellFormed(t, written(t, r.WritePlot))
	wellFormed(t, written(t, (&Report{}).WritePlot))
}

func written(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func wellFormed(t *testing.T, text string) {
	t.Helper()
	dec := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("SVG: %v:\n%s", err, text)
		}
	}
}
