package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/larder-project/larder/integration/bench/figures"
)

func newTestScene(rounds int) *scene {
	return &scene{stage: &stage{opts: options{rounds: rounds}, out: io.Discard}, sheet: &sheet{out: io.Discard}}
}

func TestRoundsAlternate(t *testing.T) {
	t.Parallel()
	sc := newTestScene(2)
	sc.sheet.row("time", "s", figures.Less, "a", figures.Goal{})
	sc.sheet.row("unused", "s", figures.Less, "a", figures.Goal{})
	var order []string
	var all []contestant
	for _, who := range []string{"a", "b", "c"} {
		all = append(all, contestant{who, func(_ context.Context, m *measured) error {
			order = append(order, who)
			m.set("time", float64(len(order)))
			m.set("unheard of", 1)
			return nil
		}})
	}
	if err := sc.rounds(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "c", "c", "b", "a", "a", "b", "c"}; !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	rows := sc.sheet.filled()
	if len(rows) != 1 {
		t.Fatalf("%d rows have values, want 1", len(rows))
	}
	// The first round is thrown away; the lines are in the order of the contestants.
	for i, want := range [][]float64{{6, 7}, {5, 8}, {4, 9}} {
		if got := rows[0].Lines[i]; got.Who != all[i].who || !slices.Equal(got.Values, want) {
			t.Errorf("line %d: %+v, want %s with %v", i, got, all[i].who, want)
		}
	}
	if len(sc.sheet.notes) == 0 {
		t.Error("a measure without a row is not noted")
	}
}

// A contestant's points become a curve each, in the order of the contestants, without
// the round that is thrown away.
func TestRoundsGrow(t *testing.T) {
	t.Parallel()
	sc := newTestScene(2)
	sc.sheet.grow("time", "s", figures.Less, "blobs")
	sc.sheet.grow("unused", "s", figures.Less, "blobs")
	var all []contestant
	for _, who := range []string{"a", "b"} {
		all = append(all, contestant{who, func(_ context.Context, m *measured) error {
			m.setAt("time", 10, float64(100+m.round))
			m.setAt("time", 1, float64(m.round))
			m.setAt("unheard of", 1, 1)
			return nil
		}})
	}
	if err := sc.rounds(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
	curves := sc.sheet.curves()
	if len(curves) != 1 || len(curves[0].Curves) != 2 || len(sc.sheet.notes) == 0 {
		t.Fatalf("got %+v and notes %q, want two curves of one measure, and a note of the other", curves, sc.sheet.notes)
	}
	for i, c := range curves[0].Curves {
		if c.Who != all[i].who || len(c.Points) != 2 || c.Points[0].At != 1 || !slices.Equal(c.Points[0].Values, []float64{1, 2}) || !slices.Equal(c.Points[1].Values, []float64{101, 102}) {
			t.Errorf("curve %d: %+v", i, c)
		}
	}
}

// What fails ends the experiment, and says in which round of whom.
func TestRoundsFail(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	ran := 0
	err := newTestScene(3).rounds(t.Context(), contestant{"a", func(context.Context, *measured) error {
		if ran++; ran == 2 {
			return bad
		}
		return nil
	}})
	if !errors.Is(err, bad) || err.Error() != "round 1 of a: bad" || ran != 2 {
		t.Errorf("got %v after %d runs", err, ran)
	}
}
