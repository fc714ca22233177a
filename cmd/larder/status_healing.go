package main

import (
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/larder-project/larder/cmd/larder/admin"
)

// printHealing says when the store was read last, and what was damaged.
func printHealing(w io.Writer, s admin.Status, now time.Time) {
	if scrub := s.Scrub; !scrub.Began.IsZero() {
		read := fmt.Sprintf("%s, %s", countOf(scrub.Blobs, "blob", "blobs"), humanize.IBytes(uint64(scrub.Bytes)))
		switch {
		case !scrub.Ended.IsZero():
			fmt.Fprintf(w, "scrub ended %s: %s, %d damaged\n", humanize.RelTime(scrub.Ended, now, "ago", "from now"), read, scrub.Damaged)
		case scrub.Waiting != "":
			fmt.Fprintf(w, "scrub since %s: %s, %d damaged; waits: %s\n", clock(scrub.Began, now), read, scrub.Damaged, scrub.Waiting)
		default:
			fmt.Fprintf(w, "scrub since %s: %s, %d damaged\n", clock(scrub.Began, now), read, scrub.Damaged)
		}
	}
	if len(s.Damages) == 0 {
		return
	}
	lost := map[string]bool{}
	for _, d := range s.Damages {
		if !d.Back {
			lost[d.Digest.String()] = true
		}
	}
	last := s.Damages[len(s.Damages)-1]
	fmt.Fprintf(w, "damaged blobs found: %d, the last one %s; not stored again: %d\n", len(s.Damages), humanize.RelTime(last.Found, now, "ago", "from now"), len(lost))
}
