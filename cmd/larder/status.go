package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/upstream"
)

func newStatusCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the running daemon and its upstreams",
		Long: `Shows who answers, and what is known of the upstreams that were asked since the
daemon started: how often they were ASKED, LIMITED that (429) or FAILED, what was
received, and how many pulls a registry says are LEFT of how many, until when at the latest.
"left alone" is an upstream that asked for it with 429 or 503: it gets no request
before that time.

"takes" is what the store has of what it may have, the smaller of space.max_size
and space.min_free. Below it stands why no more room can be made, if so.

"proxy" and "seed" are there if they are switched on: which proxy plugins are
served, what the copies of layers take, and how many images were linked into
containerd's content, or why none can be.

If the disk is full, read-only or broken, the lines below the store say so: images
are pulled all the same, and the disk is tried again every 10 seconds.

If one was passed over, a second table says how often which upstream answered,
and why it was passed over for the next one of its route.`,
		Example: `  larder status
  larder status --json | jq -r .store.state   # ok, full or degraded
  larder status --json | jq '.upstreams[] | select(.host == "registry-1.docker.io") | .remaining'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			status, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return o.printJSON(status)
			}
			return printStatus(o.stdout, status, time.Now())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printStatus(w io.Writer, s admin.Status, now time.Time) error {
	fmt.Fprintf(w, "larder %s, process %d, up %s\nmirror %s\nstore %s\n%s", s.Version, s.PID, now.Sub(s.Started).Round(time.Second), s.Mirror, s.Root,
		troubleOf(s.Store, now))
	printSpace(w, s.Space)
	printPlugins(w, s)
	printHealing(w, s, now)
	if len(s.Upstreams) == 0 {
		_, err := fmt.Fprintln(w, "no upstream was asked yet")
		return err
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "UPSTREAM\tACCOUNT\tASKED\tLIMITED\tFAILED\tRECEIVED\tLEFT\tUNTIL")
	for _, a := range s.Upstreams {
		n := a.Answers
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\n", a.Host, a.Account, n.OK+n.NotFound+n.Refused+n.Limited+n.Failed,
			n.Limited, n.Failed, humanize.IBytes(uint64(a.Bytes)), leftOf(a, now), untilOf(a, now))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	return printSources(w, s.Sources)
}

// printSpace says what the store takes, and what keeps it from storing more.
func printSpace(w io.Writer, u *cache.Usage) {
	if u == nil {
		return
	}
	counted := ""
	if u.Doubtful {
		counted = ", not counted yet"
	}
	fmt.Fprintf(w, "takes %s, %d blobs%s; %s of the disk's %s are free\n", spaceOf(*u), u.Blobs, counted,
		humanize.IBytes(uint64(u.Free)), humanize.IBytes(uint64(u.Total)))
	if u.Problem != "" {
		fmt.Fprintf(w, "no room for more: %s\n", u.Problem)
	}
}

// troubleOf says why the store does not store; "" if it does.
func troubleOf(h cache.Health, now time.Time) string {
	if h.State == cache.StateOK || h.State == "" {
		return ""
	}
	return fmt.Sprintf("  %s for %s: %s\n  stored images are served, %d blobs and manifests were passed through without storing\n",
		h.State, now.Sub(h.Since).Round(time.Second), h.Reason, h.Passed)
}

// printSources says who answered in whose place, if anybody was passed over.
func printSources(w io.Writer, sources *remotes.Sources) error {
	passedOver := func(u remotes.UpstreamUse) bool { return len(u.PassedOver) > 0 }
	if sources == nil || !slices.ContainsFunc(sources.Upstreams, passedOver) {
		return nil
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "SOURCE\tANSWERED\tPASSED OVER")
	for _, u := range sources.Upstreams {
		fmt.Fprintf(tw, "%s\t%d\t%s\n", u.Upstream, u.Answers, orDash(reasonsOf(u)))
	}
	return tw.Flush()
}

// reasonsOf says how often an upstream was passed over, and why.
func reasonsOf(u remotes.UpstreamUse) string {
	var reasons []string
	for _, reason := range slices.Sorted(maps.Keys(u.PassedOver)) {
		reasons = append(reasons, fmt.Sprintf("%d %s", u.PassedOver[reason], reason))
	}
	return strings.Join(reasons, ", ")
}

// leftOf says how many pulls are left of how many; "-" if nobody said so, or
// the window is over.
func leftOf(a upstream.Account, now time.Time) string {
	if a.Remaining == nil || !a.WindowEnd.IsZero() && !a.WindowEnd.After(now) {
		return "-"
	}
	if a.Limit == nil {
		return fmt.Sprint(*a.Remaining)
	}
	return fmt.Sprintf("%d of %d", *a.Remaining, *a.Limit)
}

// untilOf says until when an upstream is left alone, or else when its window
// ends.
func untilOf(a upstream.Account, now time.Time) string {
	switch {
	case a.AloneUntil.After(now):
		return "left alone until " + clock(a.AloneUntil, now)
	case a.WindowEnd.After(now):
		return clock(a.WindowEnd, now)
	}
	return "-"
}

// clock is a time of today without its date.
func clock(t, now time.Time) string {
	t = t.Local()
	if t.YearDay() == now.Local().YearDay() {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}
