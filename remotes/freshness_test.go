package remotes

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
)

func TestWindowOf(t *testing.T) {
	t.Parallel()
	pattern := func(text string) Pattern {
		p, err := ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	f := DefaultFreshness()
	f.Tags = []TagWindow{
		{Match: pattern("quay.io/*:latest"), Window: time.Minute},
		{Match: pattern("*:latest"), Window: time.Hour},
		{Match: pattern("*"), Window: 0},
	}
	for ref, want := range map[string]time.Duration{
		"quay.io/a:latest": time.Minute, "docker.io/a:latest": time.Hour, "docker.io/a:1": 0,
	} {
		if got := f.WindowOf(ref); got != want {
			t.Errorf("%s: got %s, want %s", ref, got, want)
		}
	}
	f.Tags = nil
	if got := f.WindowOf("quay.io/a:latest"); got != 24*time.Hour {
		t.Errorf("default window is %s, want ECR's day", got)
	}
}

func TestIsFresh(t *testing.T) {
	t.Parallel()
	f, now := DefaultFreshness(), time.Now()
	for age, want := range map[time.Duration]bool{
		0: true, 24*time.Hour - 1: true, 24 * time.Hour: false, 48 * time.Hour: false,
		-time.Second: false, // the clock was set back
	} {
		if got := f.IsFresh(cache.Tag{Validated: now.Add(-age)}, now); got != want {
			t.Errorf("validated %s ago: fresh is %t, want %t", age, got, want)
		}
	}
}

// The pause doubles with each failure, up to the window.
func TestBackOffDoubles(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		window, retry time.Duration
		want          []time.Duration
	}{
		{24 * time.Hour, time.Minute, []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute}},
		{5 * time.Minute, time.Minute, []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute}},
		{0, time.Minute, []time.Duration{time.Minute, time.Minute, time.Minute}},
		{time.Hour, 0, []time.Duration{0, 0}},
		{240_000 * time.Hour, 24 * time.Hour, []time.Duration{24 * time.Hour, 48 * time.Hour}},
	} {
		f := Freshness{Window: c.window, Retry: c.retry}
		var tag cache.Tag
		for i, want := range c.want {
			tag = f.failed(tag, errors.New("x"), now)
			if got := tag.NextCheck.Sub(now); got != want || tag.Failures != i+1 || tag.LastError != "x" {
				t.Errorf("window %s, retry %s: failure %d: pause %s, want %s", c.window, c.retry, i+1, got, want)
			}
		}
		for range 100 {
			tag = f.failed(tag, errors.New("x"), now)
			if got := tag.NextCheck.Sub(now); got < 0 || got > max(c.window, c.retry) {
				t.Fatalf("window %s, retry %s: failure %d: pause %s is out of bounds", c.window, c.retry, tag.Failures, got)
			}
		}
	}
}

// What upstream asks for with Retry-After counts, within bounds.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	f, now := Freshness{Window: time.Hour, Retry: time.Minute}, time.Now()
	for after, want := range map[time.Duration]time.Duration{
		0: time.Minute, time.Second: time.Minute, 10 * time.Minute: 10 * time.Minute, 1000 * time.Hour: time.Hour,
	} {
		err := fmt.Errorf("check: %w", &upstream.Error{RetryAfter: after})
		if got := f.failed(cache.Tag{}, err, now).NextCheck.Sub(now); got != want {
			t.Errorf("Retry-After %s: pause %s, want %s", after, got, want)
		}
	}
}

func TestHoldsOff(t *testing.T) {
	t.Parallel()
	f, now := Freshness{Window: time.Hour, Retry: time.Minute}, time.Now()
	for in, want := range map[time.Duration]bool{
		-time.Second: false, 0: false, time.Second: true, time.Hour: true,
		time.Hour + 1: false, // the clock was set back
	} {
		if got := f.holdsOff(cache.Tag{NextCheck: now.Add(in)}, now); got != want {
			t.Errorf("next check in %s: holds off is %t, want %t", in, got, want)
		}
	}
	if f.holdsOff(cache.Tag{}, now) {
		t.Error("a tag that never failed is held off")
	}
}

// Under "refuse" the pause after a 404 does not grow: pulls are refused
// meanwhile. What the tag remembers is still "not found" then, and only there.
func TestRefuseRemembersGone(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f := Freshness{Window: time.Hour, Retry: time.Minute, Deleted: DeletedRefuse}
	var tag cache.Tag
	for range 5 {
		tag = f.failed(tag, fmt.Errorf("gone: %w", errdefs.ErrNotFound), now)
		if wait := tag.NextCheck.Sub(now); wait != f.Retry || !f.holdsOff(tag, now) {
			t.Errorf("failure %d: pause %s, want %s", tag.Failures, wait, f.Retry)
		}
	}
	if err := f.lastProblem(tag); !errdefs.IsNotFound(err) || err.Error() != tag.LastError {
		t.Errorf("in the pause: got %v, want what upstream said, as not found", err)
	}
	f.Deleted = DeletedServe
	if err := f.lastProblem(tag); errdefs.IsNotFound(err) {
		t.Errorf("policy serve: got %v, want no kind", err)
	}
	f.Deleted = DeletedRefuse
	tag = f.failed(tag, errdefs.ErrUnavailable, now)
	if err := f.lastProblem(tag); errdefs.IsNotFound(err) || tag.NextCheck.Sub(now) <= f.Retry {
		t.Errorf("upstream down: got %v after %s, want a failure as any other", err, tag.NextCheck.Sub(now))
	}
}
