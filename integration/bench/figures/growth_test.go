package figures

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

// growing is a curve of larder's with one value a point, and the same again.
func growing(ats []int, of func(x float64) float64) Growth {
	g := Growth{Measure: "time", Unit: "ms", Better: Less, Of: "blobs"}
	for range 2 {
		for _, at := range ats {
			g.Add(Larder, at, of(float64(at)))
		}
	}
	return g
}

func decades() []int { return []int{1, 10, 100, 1000, 10_000} }

// The fits of figures that follow a law to the letter are that law.
func TestFits(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		of       func(x float64) float64
		a, b, r2 float64
		exponent float64
		shape    Shape
	}{
		"constant":          {func(float64) float64 { return 7 }, 7, 0, 1, 0, Constant},
		"line through 0":    {func(x float64) float64 { return 3 * x }, 0, 3, 1, 1, Linear},
		"line":              {func(x float64) float64 { return 40 + 0.5*x }, 40, 0.5, 1, math.NaN(), Linear},
		"square":            {func(x float64) float64 { return x * x }, math.NaN(), math.NaN(), math.NaN(), 2, MoreThanLinear},
		"root":              {math.Sqrt, math.NaN(), math.NaN(), math.NaN(), 0.5, LessThanLinear},
		"one over":          {func(x float64) float64 { return 5 / x }, math.NaN(), math.NaN(), math.NaN(), -1, Falls},
		"flat, then square": {func(x float64) float64 { return 100 + x*x/1e6 }, math.NaN(), math.NaN(), math.NaN(), math.NaN(), MoreThanLinear},
		"rises, then not":   {func(x float64) float64 { return min(x, 100) - x/1e4 }, math.NaN(), math.NaN(), math.NaN(), math.NaN(), LessThanLinear},
		"up and down":       {func(x float64) float64 { return 3 - math.Abs(2-math.Log10(x)) }, math.NaN(), math.NaN(), math.NaN(), 0, Uneven},
	} {
		g := growing(decades(), tc.of)
		g.finish()
		f := g.Curves[0].Fit
		for what, pair := range map[string][2]float64{"a": {f.A, tc.a}, "b": {f.B, tc.b}, "R²": {f.R2, tc.r2}, "exponent": {*f.Exponent, tc.exponent}} {
			if got, want := pair[0], pair[1]; math.Abs(got-want) > 1e-9 {
				t.Errorf("%s: %s is %v, want %v", name, what, got, want)
			}
		}
		if f.Shape != tc.shape {
			t.Errorf("%s: shape %q, want %q (%+v)", name, f.Shape, tc.shape, f)
		}
	}
}

// One point that is off by a third gives no curve another name than its others do.
func TestShapeOfNoise(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		medians []float64
		want    Shape
	}{
		{[]float64{100, 103, 135, 98, 102}, Constant},
		{[]float64{100, 103, 98, 102, 130}, Constant},
		{[]float64{164, 134, 132, 202, 159, 197}, LessThanLinear},
		{[]float64{100, 110, 130, 105, 140}, Uneven},
		{[]float64{100, 160, 90, 180, 90}, Uneven},
		{[]float64{30, 30, 38, 36, 52}, Linear},
		{[]float64{100, 101, 75, 80, 60}, Falls},
	} {
		g := Growth{}
		for i, v := range tc.medians {
			g.Add(Larder, int(math.Pow(4, float64(i))), v)
		}
		if g.finish(); g.Curves[0].Fit.Shape != tc.want {
			t.Errorf("%v: %q, want %q (%+v)", tc.medians, g.Curves[0].Fit.Shape, tc.want, g.Curves[0].Fit)
		}
	}
}

// Where one round's value lies on the line, what lies off it is not called anything else.
func TestShapeLooksAtAllRounds(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		last []float64
		want Shape
	}{
		{[]float64{10_000, 15_000, 15_000}, Linear},
		{[]float64{14_000, 15_000, 15_000}, MoreThanLinear},
		{[]float64{5000, 5000, 8500}, Linear},
		{[]float64{5000, 5000, 7000}, LessThanLinear},
	} {
		g := growing(decades()[:4], func(x float64) float64 { return x })
		for _, value := range tc.last {
			g.Add(Larder, 10_000, value)
		}
		if g.finish(); g.Curves[0].Fit.Shape != tc.want {
			t.Errorf("%v at the end: %q, want %q", tc.last, g.Curves[0].Fit.Shape, tc.want)
		}
	}
}

// What has no logarithm, or too few points, has no exponent or no shape.
func TestFitOfLittle(t *testing.T) {
	t.Parallel()
	one := growing([]int{5}, math.Sqrt)
	if one.finish(); one.Curves[0].Fit != nil {
		t.Errorf("one point: %+v, want no fit", one.Curves[0].Fit)
	}
	flat := growing(decades(), func(x float64) float64 { return 5 - x/1e9 })
	if flat.finish(); !strings.HasSuffix(flat.fewWords(flat.Curves[0].Fit), "; x^0.00") {
		t.Errorf("hardly anything: %s", flat.fewWords(flat.Curves[0].Fit))
	}
	two := growing([]int{5, 6}, math.Sqrt)
	if two.finish(); two.Curves[0].Fit.Shape != Unknown || math.Abs(*two.Curves[0].Fit.Exponent-0.5) > 1e-9 {
		t.Errorf("two points: %+v, want the exponent and no shape", two.Curves[0].Fit)
	}
	zero := growing(decades(), func(x float64) float64 { return x - 1 })
	if zero.finish(); zero.Curves[0].Fit.Exponent != nil || zero.Curves[0].Fit.Shape != Unknown || zero.Curves[0].Fit.R2 != 1 {
		t.Errorf("a median of 0: %+v, want the line alone", zero.Curves[0].Fit)
	}
}

// grown is a report with two charts, one of them with two curves of which one lacks a
// point.
func grown() *Report {
	r := sample()
	first := growing([]int{1000, 3000, 10_000}, func(x float64) float64 { return 40 + x/5000 })
	first.Add(Larder, 1000, 41)
	first.Add("nginx <1>", 10_000, 9)
	first.Add("nginx <1>", 3000, 7)
	r.Experiments[0].Growth = []Growth{first}
	r.Experiments[1].Growth = []Growth{growing([]int{8}, math.Sqrt)}
	return r
}

func TestGrowth(t *testing.T) {
	t.Parallel()
	r, again := grown(), grown()
	r.Finish()
	again.Finish()
	table := written(t, r.WriteMarkdown)
	for _, want := range []string{
		"\ntime, ms (less is better):\n\n| blobs | larder | nginx <1> |\n|--:|---|---|\n",
		"| 1,000 | 40.2 / 40.2 / 41 |  |\n| 3,000 | 40.6 | 7 |\n| 10,000 | 42 | 9 |\n",
		"- larder: constant; 40 ms + 0.2 ms per 1,000 blobs, R² 1.000; or blobs to the power of 0.02.\n",
		"- nginx <1>: unknown shape; 6.14 ms + 0.286 ms per 1,000 blobs, R² 1.000; or blobs to the power of 0.21.\n",
		"- larder: one point, no fit.\n",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
	var back Report
	if err := json.Unmarshal([]byte(written(t, r.WriteJSON)), &back); err != nil || back.Experiments[0].Growth[0].Curves[0].Fit.Shape != Constant || back.Experiments[0].Growth[0].Curves[0].Points[0].Value.Max != 41 {
		t.Errorf("JSON read back: %v, %+v", err, back)
	}
	drawing := written(t, r.WriteGrowth)
	wellFormed(t, drawing)
	for _, want := range []string{"warm: time", ">blobs (logarithmic)<", ">ms<", ">10,000<", "nginx &lt;1&gt;: unknown shape; 6.14 + 0.286 per 1,000 blobs; x^0.21"} {
		if !strings.Contains(drawing, want) {
			t.Errorf("the plot lacks %q:\n%s", want, drawing)
		}
	}
	if dots := strings.Count(drawing, "<circle"); dots != 6 {
		t.Errorf("%d dots, want one for each of the 6 points", dots)
	}
	if drawing != written(t, again.WriteGrowth) || table != written(t, again.WriteMarkdown) {
		t.Error("the same figures twice differ")
	}
	if !r.Grows() || sample().Grows() {
		t.Error("whether there is growth is not what the report has")
	}
	wellFormed(t, written(t, sample().WriteGrowth))
}

// Each dot lies within its chart, and so does the line.
func TestScale(t *testing.T) {
	t.Parallel()
	for most, want := range map[float64][2]float64{0: {1, 1}, 1: {0.2, 1}, 9.9: {2, 10}, 10.1: {2.5, 12.5}, 26: {10, 30}, 60_000: {20_000, 60_000}, 0.0123: {0.0025, 0.0125}} {
		step, end := scale(most)
		if math.Abs(step-want[0]) > 1e-12 || math.Abs(end-want[1]) > 1e-9 {
			t.Errorf("an axis to %v: steps of %v to %v, want %v", most, step, end, want)
		}
	}
}
