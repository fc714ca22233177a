package figures

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Fit is what a curve's medians follow.
type Fit struct {
	// A and B are those of the line A + B·x that has the least squares, and R2 is
	// the share of the medians' variance that it explains.
	A  float64 `json:"a"`
	B  float64 `json:"b"`
	R2 float64 `json:"r2"`
	// Exponent is k of the power law c·x^k between the first point and the last: the
	// slope of the line with the least squares between the logarithms. Nil where a
	// median is not more than 0.
	Exponent *float64 `json:"exponent,omitempty"`
	Shape    Shape    `json:"shape"`
}

// Shape is a curve in words.
type Shape string

// The shapes, by this rule:
//   - Constant: no median is more than 1.5 times another, and the power law changes by
//     less than a quarter between the first point and the last.
//   - Uneven: the power law changes as little, but the medians do not.
//   - Falls: the exponent is less than 0.
//   - All others rise, and what counts is how they go on. The line through the first
//     point and the last but one is drawn on to the last, from where the rounds' values
//     at these two points have it end highest, and lowest. MoreThanLinear: all values of
//     the last point lie more than a fifth above the highest end, and above all medians
//     before it. LessThanLinear: all lie more than a fifth below the lowest, or the last
//     median is not the most. Linear: neither, and R² is at least 0.8; if it is
//     less: Uneven, too.
//   - Unknown: there are fewer than three points, or a median is not more than 0.
const (
	Constant       Shape = "constant"
	Falls          Shape = "falls"
	LessThanLinear Shape = "less than linear"
	Linear         Shape = "linear"
	MoreThanLinear Shape = "more than linear"
	Uneven         Shape = "uneven"
	Unknown        Shape = "unknown shape"
)

// fitOf is nil where there is one point only. The points have spreads.
func fitOf(points []Point) *Fit {
	if len(points) < 2 {
		return nil
	}
	var x, y, logX, logY []float64
	for _, p := range points {
		x, y = append(x, float64(p.At)), append(y, p.Value.Median)
		logX, logY = append(logX, math.Log(float64(p.At))), append(logY, math.Log(p.Value.Median))
	}
	f := &Fit{Shape: Unknown}
	f.A, f.B, f.R2 = leastSquares(x, y)
	if _, k, _ := leastSquares(logX, logY); !math.IsNaN(k) && !math.IsInf(k, 0) {
		f.Exponent = &k
		f.Shape = shapeOf(points, k, f.R2)
	}
	return f
}

// leastSquares is the line a + b·x. There are at least two different x.
func leastSquares(x, y []float64) (a, b, r2 float64) {
	n := float64(len(x))
	var meanX, meanY, xx, xy, yy float64
	for i := range x {
		meanX, meanY = meanX+x[i]/n, meanY+y[i]/n
	}
	for i := range x {
		dx, dy := x[i]-meanX, y[i]-meanY
		xx, xy, yy = xx+dx*dx, xy+dx*dy, yy+dy*dy
	}
	b = xy / xx
	if yy == 0 {
		return meanY, 0, 1 // it explains all there is
	}
	return meanY - b*meanX, b, xy * xy / (xx * yy)
}

// shapeOf is the rule above; k is the exponent.
func shapeOf(points []Point, k, r2 float64) Shape {
	n := len(points)
	if n < 3 {
		return Unknown
	}
	first, before, last := points[0], points[n-2], points[n-1]
	least, most := first.Value.Median, first.Value.Median // of all but the last
	for _, p := range points[:n-1] {
		least, most = min(least, p.Value.Median), max(most, p.Value.Median)
	}
	flat := math.Abs(k)*math.Log(float64(last.At)/float64(first.At)) < math.Log(1.25)
	// on is where a line from the first point by the last but one ends.
	on := func(from, by float64) float64 {
		return from + (by-from)*float64(last.At-first.At)/float64(before.At-first.At)
	}
	switch {
	case flat && max(most, last.Value.Median) <= 1.5*min(least, last.Value.Median):
		return Constant
	case flat:
		return Uneven
	case k < 0:
		return Falls
	case last.Value.Min > 1.2*on(first.Value.Min, before.Value.Max) && last.Value.Min > most:
		return MoreThanLinear
	case last.Value.Max < 0.8*on(first.Value.Max, before.Value.Min), last.Value.Median < most:
		return LessThanLinear
	case r2 >= 0.8:
		return Linear
	}
	return Uneven
}

// line is the fitted line in words, as "12 ms + 0.3 ms per 1,000 blobs".
func (g *Growth) line(f *Fit, unit string) string {
	if unit != "" {
		unit = " " + unit
	}
	sign, per, of := "+", 1.0, strings.TrimSuffix(g.Of, "s")
	if f.B < 0 {
		sign = "-"
	}
	for f.B != 0 && math.Abs(f.B)*per < 0.01 && per < 1e9 {
		per *= 1000
		of = number(per) + " " + g.Of
	}
	return fmt.Sprintf("%s%s %s %s%s per %s", number(f.A), unit, sign, number(math.Abs(f.B)*per), unit, of)
}

// words say all of the fit.
func (g *Growth) words(f *Fit) string {
	if f == nil {
		return "one point, no fit"
	}
	text := fmt.Sprintf("%s; %s, R² %.3f", f.Shape, g.line(f, g.Unit), f.R2)
	if f.Exponent != nil {
		text += fmt.Sprintf("; or %s to the power of %s", g.Of, f.exponent())
	}
	return text
}

// fewWords fit above a chart, whose axes have the units.
func (g *Growth) fewWords(f *Fit) string {
	if f == nil {
		return "one point, no fit"
	}
	text := fmt.Sprintf("%s; %s", f.Shape, g.line(f, ""))
	if f.Exponent != nil {
		text += "; x^" + f.exponent()
	}
	return text
}

// exponent is it with two decimals, and no sign before a 0.
func (f *Fit) exponent() string {
	return strings.Replace(strconv.FormatFloat(*f.Exponent, 'f', 2, 64), "-0.00", "0.00", 1)
}
