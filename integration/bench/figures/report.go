package figures

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// Report is one run of the benchmark.
type Report struct {
	// Machine, Version and Date as whoever runs it says them.
	Machine string `json:"machine"`
	Version string `json:"version"`
	Date    string `json:"date"`
	Command string `json:"command"`
	Rounds  int    `json:"rounds"`
	// Experiments in the order they ran.
	Experiments []Experiment `json:"experiments"`
}

// Experiment is what one set-up has measured.
type Experiment struct {
	Name string `json:"name"`
	// About says how it is measured.
	About string `json:"about"`
	// Notes are what a reader has to know: gates that held, who was left out.
	Notes []string `json:"notes,omitempty"`
	// Failed is why there is less than there should be.
	Failed string   `json:"failed,omitempty"`
	Rows   []Row    `json:"rows"`
	Growth []Growth `json:"growth,omitempty"`
}

// Finish computes what the writers say. It is called once, before them.
func (r *Report) Finish() {
	for i := range r.Experiments {
		for j := range r.Experiments[i].Rows {
			r.Experiments[i].Rows[j].finish()
		}
		for j := range r.Experiments[i].Growth {
			r.Experiments[i].Growth[j].finish()
		}
	}
}

// Failed are the names of experiments that did.
func (r *Report) Failed() (names []string) {
	for _, e := range r.Experiments {
		if e.Failed != "" {
			names = append(names, e.Name)
		}
	}
	return names
}

// Grows says whether there is anything for WriteGrowth to plot.
func (r *Report) Grows() bool {
	return slices.ContainsFunc(r.Experiments, func(e Experiment) bool { return len(e.Growth) > 0 })
}

// WriteJSON writes all of it.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "\t")
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("report as JSON: %w", err)
	}
	return nil
}
