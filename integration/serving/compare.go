package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// compare measures larder and nginx in turn, and prints their ratios, each within
// one round: what else the machine does then, it does to both.
func compare(ctx context.Context, s *stage, rows []row, t task) error {
	nginx, err := s.startNginx(ctx, t.nginx, t.log == "info")
	if err != nil {
		return err
	}
	larder := s.server()
	fmt.Fprintf(t.report, "larder with log.level = %q against nginx; %d rounds of %s; ratios are min / median / max\n\n", t.log, t.rounds, t.length)
	fmt.Fprintln(t.report, "| row | clients | larder | nginx | rate | p99 | machine | server | server and client |")
	fmt.Fprintln(t.report, "|---|--:|--:|--:|--:|--:|--:|--:|--:|")
	for _, r := range rows {
		for _, n := range t.clients {
			var ours, theirs []figures
			for round := range t.rounds {
				measure := func(of server, to *[]figures) error {
					f, err := r.measure(ctx, s, of, n, t.length)
					*to = append(*to, f)
					return err
				}
				first, second := larder, nginx
				into, then := &ours, &theirs
				if round%2 == 1 {
					first, second, into, then = second, first, then, into
				}
				if err := measure(first, into); err != nil {
					return err
				}
				if err := measure(second, then); err != nil {
					return err
				}
			}
			fmt.Fprintf(t.report, "| %s | %d | %s | %s | %s | %s | %s | %s | %s |\n", r.name, n, show(ours), show(theirs),
				ratios(ours, theirs, func(f figures) float64 { return f.rate }),
				ratios(ours, theirs, func(f figures) float64 { return float64(f.p99) }),
				ratios(ours, theirs, func(f figures) float64 { return f.machine }),
				ratios(ours, theirs, func(f figures) float64 { return f.server }),
				ratios(ours, theirs, func(f figures) float64 { return f.both }))
		}
	}
	return nil
}

// show is the median round.
func show(all []figures) string {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b figures) int {
		if a.rate < b.rate {
			return -1
		}
		return 1
	})
	f := sorted[len(sorted)/2]
	if f.p99 == 0 {
		return fmt.Sprintf("%.2f GiB/s, %.2f s/GiB, own %.2f", f.rate/(1<<30), f.machine*(1<<30), f.server*(1<<30))
	}
	return fmt.Sprintf("%.1fk/s, p99 %s, own %.1f µs", f.rate/1000, f.p99.Round(10*time.Microsecond), f.server*1e6)
}

// ratios are those of the rounds: the least, the median and the greatest.
func ratios(ours, theirs []figures, of func(figures) float64) string {
	var all []float64
	for i := range ours {
		if of(theirs[i]) == 0 {
			return ""
		}
		all = append(all, of(ours[i])/of(theirs[i]))
	}
	slices.Sort(all)
	return fmt.Sprintf("%.2f / %.2f / %.2f", all[0], all[len(all)/2], all[len(all)-1])
}
