package figures

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"math"
)

// Sizes of the plot, in its own units.
const (
	plotWidth  = 960
	plotLabel  = 360 // left of the bars
	plotValue  = 170 // right of them
	plotLine   = 18
	plotHead   = 28
	plotMargin = 12
)

// WritePlot writes an SVG with a bar for each ratio, on a logarithmic scale around 1:
// to the left less than the base, to the right more, with a line from the least to the
// most. Rows without a base are left to the table.
func (r *Report) WritePlot(w io.Writer) error {
	rows := r.plotted()
	height := 2 * plotMargin
	for _, row := range rows {
		height += plotHead + plotLine*len(row.Lines)
	}
	p := &plot{w: bufio.NewWriter(w), reach: reach(rows), y: plotMargin}
	fmt.Fprintf(p.w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, height)
	fmt.Fprintf(p.w, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", plotWidth, height)
	for _, row := range rows {
		p.row(row)
	}
	fmt.Fprintln(p.w, "</svg>")
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("report as a plot: %w", err)
	}
	return nil
}

func (r *Report) plotted() (rows []Row) {
	for _, e := range r.Experiments {
		for _, row := range e.Rows {
			if row.line(row.Base) == nil {
				continue
			}
			row.Measure = e.Name + ", " + row.Measure
			rows = append(rows, row)
		}
	}
	return rows
}

// reach is how far the scale goes to each side, as a power of 2.
func reach(rows []Row) float64 {
	most := 1.0
	for _, row := range rows {
		for _, l := range row.Lines {
			if l.Ratio != nil && l.Ratio.Min > 0 {
				most = max(most, math.Abs(math.Log2(l.Ratio.Min)), math.Abs(math.Log2(l.Ratio.Max)))
			}
		}
	}
	return most
}

// plot is the picture as far as it is drawn.
type plot struct {
	w     *bufio.Writer
	reach float64
	y     int
}

// at is where a ratio stands.
func (p *plot) at(ratio float64) float64 {
	const middle, half = (plotLabel + plotWidth - plotValue) / 2, (plotWidth - plotValue - plotLabel) / 2
	return middle + half*math.Log2(ratio)/p.reach
}

func (p *plot) row(row Row) {
	fmt.Fprintf(p.w, `<text x="%d" y="%d" font-weight="bold">%s (%s is better; %s = 1)</text>`+"\n",
		plotMargin, p.y+plotHead-8, html.EscapeString(row.Measure), row.Better, html.EscapeString(row.Base))
	p.y += plotHead
	top := p.y
	for _, l := range row.Lines {
		p.line(row, l)
		p.y += plotLine
	}
	p.mark(1, top, "#444", "")
	if row.Goal.Bound > 0 && row.Goal.Of == row.Base {
		p.mark(row.Goal.Bound, top, "#c60", ` stroke-dasharray="3 2"`)
	}
}

// mark is an upright line through a row's bars.
func (p *plot) mark(ratio float64, top int, colour, style string) {
	x := p.at(ratio)
	fmt.Fprintf(p.w, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s"%s/>`+"\n", x, x, top, p.y, colour, style)
}

func (p *plot) line(row Row, l Line) {
	colour := "#9ab"
	if l.Who == Larder {
		colour = "#27a"
	}
	fmt.Fprintf(p.w, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", plotLabel-8, p.y+13, html.EscapeString(l.Who))
	if l.Ratio == nil || l.Ratio.Min <= 0 {
		return
	}
	one, median := p.at(1), p.at(l.Ratio.Median)
	fmt.Fprintf(p.w, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n",
		min(one, median), p.y+3, math.Abs(median-one), plotLine-6, colour)
	fmt.Fprintf(p.w, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#000"/>`+"\n",
		p.at(l.Ratio.Min), p.at(l.Ratio.Max), p.y+plotLine/2, p.y+plotLine/2)
	fmt.Fprintf(p.w, `<text x="%d" y="%d">%s (%s %s)</text>`+"\n", plotWidth-plotValue+8, p.y+13,
		number(l.Ratio.Median), number(l.Value.Median), html.EscapeString(row.Unit))
}
