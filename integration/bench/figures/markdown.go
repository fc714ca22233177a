package figures

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// WriteMarkdown writes a section with a table for each experiment.
func (r *Report) WriteMarkdown(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "`%s`, larder %s, %s. %s. Rounds: %d; minimum / median / maximum, ratios within a round.\n",
		r.Command, r.Version, r.Date, r.Machine, r.Rounds)
	for _, e := range r.Experiments {
		fmt.Fprintf(b, "\n### %s\n\n%s\n", e.Name, e.About)
		if e.Failed != "" {
			fmt.Fprintf(b, "\n**Failed:** %s\n", oneLine(e.Failed))
		}
		if len(e.Rows) > 0 {
			fmt.Fprint(b, "\n| measure | who | value | ratio | goal |\n|---|---|---|---|---|\n")
		}
		for _, row := range e.Rows {
			writeRow(b, row)
		}
		for _, g := range e.Growth {
			writeGrowth(b, g)
		}
		for i, note := range e.Notes {
			if i == 0 {
				fmt.Fprintln(b)
			}
			fmt.Fprintf(b, "- %s\n", oneLine(note))
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("report as Markdown: %w", err)
	}
	return nil
}

func writeRow(w io.Writer, row Row) {
	for i, l := range row.Lines {
		measure, ratio, goal := "", "", ""
		if i == 0 {
			measure = row.Measure
			if row.Unit != "" {
				measure += ", " + row.Unit
			}
		}
		if l.Ratio != nil && l.Who != row.Base {
			ratio = l.Ratio.String() + " of " + row.Base
		}
		if l.Who == Larder {
			if goal = row.goal(); goal != "" && row.verdict() != "" {
				goal += ": " + row.verdict()
			}
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", measure, l.Who, l.Value, ratio, goal)
	}
}

// writeGrowth writes a table with a line for each number, and what it follows.
func writeGrowth(w io.Writer, g Growth) {
	fmt.Fprintf(w, "\n%s, %s (%s is better):\n\n| %s |", g.Measure, g.Unit, g.Better, g.Of)
	for _, c := range g.Curves {
		fmt.Fprintf(w, " %s |", c.Who)
	}
	fmt.Fprintf(w, "\n|--:|%s\n", strings.Repeat("---|", len(g.Curves)))
	for _, at := range g.ats() {
		fmt.Fprintf(w, "| %s |", number(float64(at)))
		for _, c := range g.Curves {
			text := ""
			if p := c.point(at); p != nil {
				text = p.Value.String()
			}
			fmt.Fprintf(w, " %s |", text)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
	for _, c := range g.Curves {
		fmt.Fprintf(w, "- %s: %s.\n", c.Who, g.words(c.Fit))
	}
}

// String is the three of them, or one if they are the same.
func (s Spread) String() string {
	if s.Min == s.Max {
		return number(s.Median)
	}
	return number(s.Min) + " / " + number(s.Median) + " / " + number(s.Max)
}

// number has three digits that count, and no exponent; whole thousands have commas.
func number(v float64) string {
	abs := math.Abs(v)
	switch {
	case abs == 0 || math.IsInf(v, 0) || math.IsNaN(v):
		return strconv.FormatFloat(v, 'f', -1, 64)
	case abs >= 100:
		return commas(strconv.FormatFloat(v, 'f', 0, 64))
	}
	decimals := 2 - int(math.Floor(math.Log10(abs)))
	text := strconv.FormatFloat(v, 'f', min(decimals, 6), 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

func commas(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// oneLine is for what other programs have said.
func oneLine(text string) string {
	return strings.Join(strings.Fields(text), " ")
}
