package figures

import "fmt"

// Larder is the name of the contestant that goals are for.
const Larder = "larder"

// Direction says which values are good.
type Direction string

// Less is better for times, More for throughput.
const (
	Less Direction = "less"
	More Direction = "more"
)

// Goal bounds larder's median.
type Goal struct {
	// Of is whose value of the same round the bound is a multiple of; "" where Bound
	// is in the row's unit.
	Of string `json:"of,omitempty"`
	// Bound is at most or at least, as the row's direction says; 0: no goal.
	Bound float64 `json:"bound,omitempty"`
}

// Row is one measure, with all who were measured.
type Row struct {
	// Experiment is what it was measured in, and Measure what of it: "warm blob", "8
	// streams: throughput".
	Experiment string    `json:"experiment"`
	Measure    string    `json:"measure"`
	Unit       string    `json:"unit"`
	Better     Direction `json:"better"`
	// Base is the contestant whose value counts as 1; "": no ratios.
	Base  string `json:"base,omitempty"`
	Goal  Goal   `json:"goal"`
	Lines []Line `json:"lines"`
}

// Line is one contestant's values, one a round.
type Line struct {
	Who    string    `json:"who"`
	Values []float64 `json:"values"`
	// Value and Ratio are filled in by Report.Finish.
	Value *Spread `json:"value,omitempty"`
	Ratio *Spread `json:"ratio,omitempty"`
}

// Add appends one round's value of who.
func (r *Row) Add(who string, value float64) {
	if l := r.line(who); l != nil {
		l.Values = append(l.Values, value)
		return
	}
	r.Lines = append(r.Lines, Line{Who: who, Values: []float64{value}})
}

func (r *Row) line(who string) *Line {
	for i := range r.Lines {
		if r.Lines[i].Who == who {
			return &r.Lines[i]
		}
	}
	return nil
}

// finish computes the spreads.
func (r *Row) finish() {
	base := r.line(r.Base)
	for i := range r.Lines {
		l := &r.Lines[i]
		value := SpreadOf(l.Values)
		l.Value = &value
		if base == nil {
			continue
		}
		if of := ratios(l.Values, base.Values); len(of) > 0 {
			ratio := SpreadOf(of)
			l.Ratio = &ratio
		}
	}
}

// verdict is "met", "missed" or, where that cannot be said, "".
func (r *Row) verdict() string {
	own := r.line(Larder)
	if own == nil || r.Goal.Bound == 0 {
		return ""
	}
	values := own.Values
	if r.Goal.Of != "" {
		of := r.line(r.Goal.Of)
		if of == nil {
			return ""
		}
		if values = ratios(own.Values, of.Values); len(values) == 0 {
			return ""
		}
	}
	median := SpreadOf(values).Median
	if r.Better == Less && median <= r.Goal.Bound || r.Better == More && median >= r.Goal.Bound {
		return "met"
	}
	return "missed"
}

// goal is the goal in words.
func (r *Row) goal() string {
	if r.Goal.Bound == 0 {
		return ""
	}
	word := "at most"
	if r.Better == More {
		word = "at least"
	}
	if r.Goal.Of == "" {
		return fmt.Sprintf("%s %s %s", word, number(r.Goal.Bound), r.Unit)
	}
	return fmt.Sprintf("%s %s of %s", word, number(r.Goal.Bound), r.Goal.Of)
}
