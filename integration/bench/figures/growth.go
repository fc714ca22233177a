package figures

import "slices"

// Growth is how one measure changes with how many there are of something.
type Growth struct {
	Measure string    `json:"measure"`
	Unit    string    `json:"unit"`
	Better  Direction `json:"better"`
	// Of is what there are more and more of, in the plural: "blobs".
	Of     string  `json:"of"`
	Curves []Curve `json:"curves"`
}

// Curve is one contestant's.
type Curve struct {
	Who string `json:"who"`
	// Points are in the order of how many there were.
	Points []Point `json:"points"`
	// Fit is filled in by Report.Finish; nil where there is one point only.
	Fit *Fit `json:"fit,omitempty"`
}

// Point is what was measured when there were At of them, one value a round.
type Point struct {
	At     int       `json:"at"`
	Values []float64 `json:"values"`
	// Value is filled in by Report.Finish.
	Value *Spread `json:"value,omitempty"`
}

// Add appends one round's value of who when there were at of them, which is at least 1.
func (g *Growth) Add(who string, at int, value float64) {
	i := slices.IndexFunc(g.Curves, func(c Curve) bool { return c.Who == who })
	if i < 0 {
		i = len(g.Curves)
		g.Curves = append(g.Curves, Curve{Who: who})
	}
	c := &g.Curves[i]
	j, found := slices.BinarySearchFunc(c.Points, at, func(p Point, at int) int { return p.At - at })
	if !found {
		c.Points = slices.Insert(c.Points, j, Point{At: at})
	}
	c.Points[j].Values = append(c.Points[j].Values, value)
}

// ats are all numbers that any of the curves has a point at.
func (g *Growth) ats() []int {
	var all []int
	for _, c := range g.Curves {
		for _, p := range c.Points {
			all = append(all, p.At)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// point is the curve's at a number; nil if it has none.
func (c *Curve) point(at int) *Point {
	for i := range c.Points {
		if c.Points[i].At == at {
			return &c.Points[i]
		}
	}
	return nil
}

// finish computes the spreads and the fits.
func (g *Growth) finish() {
	for i := range g.Curves {
		c := &g.Curves[i]
		for j := range c.Points {
			value := SpreadOf(c.Points[j].Values)
			c.Points[j].Value = &value
		}
		c.Fit = fitOf(c.Points)
	}
}
