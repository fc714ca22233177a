package doctor

import (
	"fmt"
	"strings"
)

// Status says how a check ended.
type Status string

// The statuses.
const (
	OK      Status = "ok"
	Warning Status = "warning" // it works, and probably not as meant
	Problem Status = "problem" // it does not work, or will not for long
	Unknown Status = "unknown" // it could not be looked at
)

// Result is what one check found. A check has several results if it found
// several things.
type Result struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	// Found is one line.
	Found string `json:"found"`
	// Remedy says what to do, in one line or more. Empty: nothing.
	Remedy string `json:"remedy,omitempty"`
}

// Fine returns a result that needs no remedy.
func Fine(check, format string, args ...any) Result {
	return Result{Check: check, Status: OK, Found: fmt.Sprintf(format, args...)}
}

// Bad returns a result with what was found and what to do about it.
func Bad(status Status, check, found, remedy string) Result {
	return Result{Check: check, Status: status, Found: strings.ReplaceAll(found, "\n", "; "), Remedy: strings.TrimRight(remedy, "\n")}
}

// Report is all that was found.
type Report struct {
	// Healthy says that there is no problem. There may be warnings, and things
	// that are not known.
	Healthy  bool     `json:"healthy"`
	Problems int      `json:"problems"`
	Warnings int      `json:"warnings"`
	Unknown  int      `json:"unknown"`
	Checks   []Result `json:"checks"`
}

// NewReport counts results.
func NewReport(results []Result) Report {
	r := Report{Checks: results}
	for _, res := range results {
		switch res.Status {
		case Problem:
			r.Problems++
		case Warning:
			r.Warnings++
		case Unknown:
			r.Unknown++
		}
	}
	r.Healthy = r.Problems == 0
	return r
}
