package figures

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"math"
	"strconv"
	"strings"
)

// Sizes of the charts, in the picture's own units.
const (
	chartColumns = 2
	chartWidth   = 480
	chartHeight  = 280
	chartLeft    = 64 // left of the axes
	chartRight   = 20
	chartBottom  = 42
	chartTitle   = 28 // above a chart's legend
	chartLegend  = 16 // a line of it
	chartGap     = 26 // between the legend and the axes
)

// WriteGrowth writes an SVG with a chart for each measure that grows: what there is more
// and more of on a logarithmic axis, the medians as dots with a bar from the least to
// the most of the rounds, and the fitted line, which is bent by that axis.
func (r *Report) WriteGrowth(w io.Writer) error {
	b := bufio.NewWriter(w)
	var charts []*chart
	for _, e := range r.Experiments {
		for _, g := range e.Growth {
			charts = append(charts, newChart(b, e.Name, g))
		}
	}
	rows := (len(charts) + chartColumns - 1) / chartColumns
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", chartColumns*chartWidth, rows*chartHeight)
	fmt.Fprintf(b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", chartColumns*chartWidth, rows*chartHeight)
	for i, c := range charts {
		fmt.Fprintf(b, `<g transform="translate(%d %d)">`+"\n", i%chartColumns*chartWidth, i/chartColumns*chartHeight)
		c.draw()
		fmt.Fprintln(b, "</g>")
	}
	fmt.Fprintln(b, "</svg>")
	if err := b.Flush(); err != nil {
		return fmt.Errorf("growth as a plot: %w", err)
	}
	return nil
}

// chart is one of them.
type chart struct {
	w          io.Writer
	experiment string
	growth     Growth
	ats        []int
	least      float64 // the logarithm of the first number
	decades    float64 // from there to the last; 0: there is one only
	step, most float64 // between the marks of the upright axis, and its end
	top        float64
}

func newChart(w io.Writer, experiment string, g Growth) *chart {
	c := &chart{w: w, experiment: experiment, growth: g, ats: g.ats(), top: float64(chartTitle + chartLegend*len(g.Curves) + chartGap)}
	c.least = math.Log10(float64(c.ats[0]))
	c.decades = math.Log10(float64(c.ats[len(c.ats)-1])) - c.least
	for _, curve := range g.Curves {
		for _, p := range curve.Points {
			c.most = max(c.most, p.Value.Max)
		}
	}
	c.step, c.most = scale(c.most)
	return c
}

// scale is the step between the marks of an axis from 0 that has to reach most, and its
// end: four or five steps of 1, 2, 2.5 or 5 times a power of ten.
func scale(most float64) (step, end float64) {
	if most <= 0 {
		return 1, 1
	}
	power := math.Pow(10, math.Floor(math.Log10(most))-1)
	for _, times := range []float64{2, 2.5, 5, 10, 20, 25} {
		if step = times * power; step*5 >= most {
			break
		}
	}
	return step, step * math.Ceil(most/step-1e-9)
}

// x is where a number stands, y where a value does.
func (c *chart) x(at float64) float64 {
	const width, inset = chartWidth - chartLeft - chartRight, 16 // keeps the first dot off the axis
	if c.decades == 0 {
		return chartLeft + width/2
	}
	return chartLeft + inset + (width-2*inset)*(math.Log10(at)-c.least)/c.decades
}

func (c *chart) y(value float64) float64 {
	const bottom = chartHeight - chartBottom
	return bottom - (bottom-c.top)*value/c.most
}

func (c *chart) draw() {
	c.text(12, 18, "start", `font-size="12" font-weight="bold"`, c.experiment+": "+c.growth.Measure)
	c.axes()
	for i, curve := range c.growth.Curves {
		colour := colourOf(curve.Who, i)
		c.text(12, float64(chartTitle+chartLegend*i+8), "start", `fill="`+colour+`"`, curve.Who+": "+c.growth.fewWords(curve.Fit))
		c.fitted(curve.Fit, colour)
		for _, p := range curve.Points {
			c.point(p, colour)
		}
	}
}

// colourOf keeps larder's for larder, wherever it stands.
func colourOf(who string, i int) string {
	others := []string{"#b50", "#683", "#849"}
	if who == Larder {
		return "#27a"
	}
	return others[i%len(others)]
}

func (c *chart) axes() {
	const right, bottom = chartWidth - chartRight, chartHeight - chartBottom
	for i := range int(c.most/c.step + 1.5) {
		value := float64(i) * c.step
		y := c.y(value)
		c.line(chartLeft, y, right, y, `stroke="#ddd"`)
		c.text(chartLeft-6, y+4, "end", `fill="#444"`, number(value))
	}
	for _, at := range c.ats {
		x := c.x(float64(at))
		c.line(x, bottom, x, bottom+4, `stroke="#444"`)
		c.text(x, bottom+16, "middle", `fill="#444"`, number(float64(at)))
	}
	c.line(chartLeft, bottom, right, bottom, `stroke="#444"`)
	c.line(chartLeft, c.top, chartLeft, bottom, `stroke="#444"`)
	c.text((chartLeft+right)/2, bottom+32, "middle", `fill="#444"`, c.growth.Of+" (logarithmic)")
	c.text(12, c.top-10, "start", `fill="#444"`, c.growth.Unit)
}

// fitted draws the line as far as it is above 0 and below the chart's end.
func (c *chart) fitted(f *Fit, colour string) {
	if f == nil {
		return
	}
	const pieces = 96
	var points []string
	for i := range pieces + 1 {
		at := math.Pow(10, c.least+c.decades*float64(i)/pieces)
		if value := f.A + f.B*at; value >= 0 && value <= c.most {
			points = append(points, coordinate(c.x(at))+","+coordinate(c.y(value)))
		}
	}
	fmt.Fprintf(c.w, `<polyline points="%s" fill="none" stroke="%s" stroke-opacity="0.6" stroke-dasharray="5 3"/>`+"\n", strings.Join(points, " "), colour)
}

func (c *chart) point(p Point, colour string) {
	x := c.x(float64(p.At))
	style := fmt.Sprintf(`stroke="%s" stroke-width="1.5"`, colour)
	for _, value := range []float64{p.Value.Min, p.Value.Max} {
		c.line(x-4, c.y(value), x+4, c.y(value), style)
	}
	c.line(x, c.y(p.Value.Min), x, c.y(p.Value.Max), style)
	fmt.Fprintf(c.w, `<circle cx="%s" cy="%s" r="3.5" fill="%s"/>`+"\n", coordinate(x), coordinate(c.y(p.Value.Median)), colour)
}

func (c *chart) line(x1, y1, x2, y2 float64, style string) {
	fmt.Fprintf(c.w, `<line x1="%s" y1="%s" x2="%s" y2="%s" %s/>`+"\n", coordinate(x1), coordinate(y1), coordinate(x2), coordinate(y2), style)
}

func (c *chart) text(x, y float64, anchor, style, text string) {
	fmt.Fprintf(c.w, `<text x="%s" y="%s" text-anchor="%s" %s>%s</text>`+"\n", coordinate(x), coordinate(y), anchor, style, html.EscapeString(text))
}

func coordinate(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }
