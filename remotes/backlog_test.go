package remotes

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestQueueIsBounded: without Run nothing piles up, and nobody waits.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	q := newBacklog()
	s := func(host, i int) sighting {
		repo := Repository{Host: fmt.Sprintf("h%d.example", host), Path: "app"}
		return sighting{repo: repo, digest: digest.FromString(string(rune(i)))}
	}
	const hosts = maxQueue / maxHostQueue
	for host := range hosts {
		for i := range maxHostQueue {
			for range 2 { // twice counts once
				if !q.add(s(host, i)) {
					t.Fatalf("sighting %d of host %d was dropped", i, host)
				}
			}
		}
		if q.add(s(host, maxHostQueue)) {
			t.Error("a host has more than its share")
		}
	}
	if q.add(s(hosts, 0)) {
		t.Error("one more than the bound was taken")
	}
	taken := make([]sighting, hosts)
	for i := range taken {
		taken[i], _ = q.take(soon(t))
		if got := slices.IndexFunc(taken[:i], func(t sighting) bool { return t.repo == taken[i].repo }); got >= 0 {
			t.Errorf("two of %s are taken at a time", taken[i].repo.Host)
		}
	}
	gone, end := context.WithCancel(t.Context())
	end()
	if s, ok := q.take(gone); ok {
		t.Errorf("took %s: one of every host is taken", s.key())
	}
	if !q.add(s(hosts, 0)) {
		t.Error("nothing is taken any more")
	}
	for _, s := range taken {
		q.done(s)
	}
	for range hosts*(maxHostQueue-1) + 1 {
		s, ok := q.take(soon(t))
		if !ok {
			t.Fatal("something was lost")
		}
		q.done(s)
	}
	if q.length != 0 || len(q.queues) != 0 || len(q.waiting) != 0 || len(q.hosts) != 0 {
		t.Errorf("left behind: %d, %v, %v, %d", q.length, q.queues, q.waiting, len(q.hosts))
	}
}
