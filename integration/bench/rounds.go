package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/larder-project/larder/integration/bench/figures"
)

// experiment is a set-up and what is measured in it.
type experiment struct {
	name  string
	about string
	run   func(ctx context.Context, sc *scene) error
}

// contestant is measured once a round.
type contestant struct {
	who string
	run func(ctx context.Context, m *measured) error
}

// measured takes one contestant's values of one round.
type measured struct {
	who    string
	round  int // 0 is thrown away
	values map[string]float64
	points []point
}

// point is the value of a measure when there were at of what grows.
type point struct {
	measure string
	at      int
	value   float64
}

func (m *measured) set(measure string, value float64) { m.values[measure] = value }

func (m *measured) setAt(measure string, at int, value float64) {
	m.points = append(m.points, point{measure, at, value})
}

func (m *measured) String() string {
	var all []string
	for _, measure := range slices.Sorted(maps.Keys(m.values)) {
		all = append(all, fmt.Sprintf("%s %.4g", measure, m.values[measure]))
	}
	for _, p := range m.points {
		all = append(all, fmt.Sprintf("%s at %d %.4g", p.measure, p.at, p.value))
	}
	return strings.Join(all, "; ")
}

// rounds measures all contestants in turns, each second round backwards, so that none
// always comes after the same other. What one more round before them measures is thrown
// away: it fills caches.
func (sc *scene) rounds(ctx context.Context, contestants ...contestant) error {
	return sc.measure(ctx, 0, contestants)
}

// coldRounds is rounds without the one before them, for what finds nothing in caches.
func (sc *scene) coldRounds(ctx context.Context, contestants ...contestant) error {
	return sc.measure(ctx, 1, contestants)
}

func (sc *scene) measure(ctx context.Context, first int, contestants []contestant) error {
	defer sc.sheet.order(contestants)
	for round := first; round <= sc.opts.rounds; round++ {
		order := slices.Clone(contestants)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, c := range order {
			m := &measured{who: c.who, round: round, values: map[string]float64{}}
			began := time.Now()
			if err := c.run(ctx, m); err != nil {
				return fmt.Errorf("round %d of %s: %w", round, c.who, err)
			}
			if round > 0 {
				sc.sheet.add(m)
			}
			fmt.Fprintf(sc.out, "   %d %s (%.1f s): %s\n", round, c.who, time.Since(began).Seconds(), m)
		}
	}
	return nil
}

// sheet collects an experiment's rows, and what grows in it.
type sheet struct {
	out    io.Writer
	rows   []figures.Row
	growth []figures.Growth
	notes  []string
}

// row announces a measure; its values come with the rounds. base may be "".
func (s *sheet) row(measure, unit string, better figures.Direction, base string, goal figures.Goal) {
	s.rows = append(s.rows, figures.Row{Measure: measure, Unit: unit, Better: better, Base: base, Goal: goal})
}

// grow announces a measure that changes with how many there are of something.
func (s *sheet) grow(measure, unit string, better figures.Direction, of string) {
	s.growth = append(s.growth, figures.Growth{Measure: measure, Unit: unit, Better: better, Of: of})
}

// add takes over what a contestant has measured. Measures that were not announced are a
// mistake of the experiment's.
func (s *sheet) add(m *measured) {
	for measure, value := range m.values {
		i := slices.IndexFunc(s.rows, func(r figures.Row) bool { return r.Measure == measure })
		if i < 0 {
			s.note("%s measured %q, for which there is no row", m.who, measure)
			continue
		}
		s.rows[i].Add(m.who, value)
	}
	for _, p := range m.points {
		i := slices.IndexFunc(s.growth, func(g figures.Growth) bool { return g.Measure == p.measure })
		if i < 0 {
			s.note("%s measured %q at %d, for which there is no curve", m.who, p.measure, p.at)
			continue
		}
		s.growth[i].Add(m.who, p.at, p.value)
	}
}

// order has the lines of each row, and the curves, in the order of the contestants,
// whoever was first in the first round.
func (s *sheet) order(contestants []contestant) {
	place := func(who string) int {
		return slices.IndexFunc(contestants, func(c contestant) bool { return c.who == who })
	}
	for _, row := range s.rows {
		slices.SortStableFunc(row.Lines, func(a, b figures.Line) int { return place(a.Who) - place(b.Who) })
	}
	for _, g := range s.growth {
		slices.SortStableFunc(g.Curves, func(a, b figures.Curve) int { return place(a.Who) - place(b.Who) })
	}
}

// note is for the reader of the report.
func (s *sheet) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// filled are the rows that have values.
func (s *sheet) filled() []figures.Row {
	return slices.DeleteFunc(slices.Clone(s.rows), func(r figures.Row) bool { return len(r.Lines) == 0 })
}

// curves are the measures that grow and have values.
func (s *sheet) curves() []figures.Growth {
	return slices.DeleteFunc(slices.Clone(s.growth), func(g figures.Growth) bool { return len(g.Curves) == 0 })
}
