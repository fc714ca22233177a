package main

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/larder-project/larder/integration/bench/figures"
	"github.com/larder-project/larder/integration/internal/parts"
)

// Each experiment has a point for each step and a value for each round, of a real larder.
func TestGrowthIsMeasured(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		measures []string
		run      func(ctx context.Context, sc *scene, steps []int) error
	}{
		{"blobs", []string{untilServes, memoryThen}, growBlobs},
		{"tags", []string{untilServes, tagFirst, tagRequests, memoryThen}, func(ctx context.Context, sc *scene, steps []int) error {
			return growTags(ctx, sc, steps, time.Nanosecond)
		}},
		{"clients", []string{clientBlobs, clientMemory, clientRequests, clientP99}, func(ctx context.Context, sc *scene, steps []int) error {
			return growClients(ctx, sc, steps, time.Nanosecond)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newTestStage(t)
			e := s.perform(t.Context(), experiment{name: tc.name, run: func(ctx context.Context, sc *scene) error { return tc.run(ctx, sc, []int{1, 3}) }})
			if e.Failed != "" || len(e.Growth) != len(tc.measures) {
				t.Fatalf("failed: %q; %d curves, want %d", e.Failed, len(e.Growth), len(tc.measures))
			}
			for i, g := range e.Growth {
				if g.Measure != tc.measures[i] || len(g.Curves) != 1 || g.Curves[0].Who != figures.Larder || len(g.Curves[0].Points) != 2 {
					t.Errorf("got %+v, want larder's %s at two steps", g, tc.measures[i])
				}
				for _, p := range g.Curves[0].Points {
					if len(p.Values) != 1 || p.Values[0] <= 0 {
						t.Errorf("%s at %d: %v, want one value", g.Measure, p.At, p.Values)
					}
				}
			}
			if left, err := os.ReadDir(s.dir); err != nil || len(left) != 1 || left[0].Name() != "images" {
				t.Errorf("left behind: %v, %v, want the images alone", left, err)
			}
		})
	}
}

// newTestStage is one with larder and no others, for one round.
func newTestStage(t *testing.T) *stage {
	t.Helper()
	bin, err := parts.FindBin()
	if err != nil {
		t.Fatal(err)
	}
	if err := bin.Need(larder); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	images, err := newImages(dir + "/images")
	if err != nil {
		t.Fatal(err)
	}
	return &stage{
		bin: bin, dir: dir, images: images, opts: options{rounds: 1}, out: io.Discard,
		peers: &peers{missing: map[string]string{"nginx": "not measured here"}},
	}
}

// A server that asks upstream for what it has stored fails, and is closed whatever comes.
func TestRunning(t *testing.T) {
	t.Parallel()
	im, _ := makeImage(t, small(7))
	u, err := startUpstream(im)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	bad := errors.New("bad")
	for name, tc := range map[string]struct {
		do   func(time.Time) error
		want string
	}{
		"asks nothing": {func(time.Time) error { return nil }, ""},
		"asks":         {func(time.Time) error { ask(t, "HEAD", u.URL()+"/v2/library/x/manifests/1", ""); return nil }, "has asked upstream"},
		"fails":        {func(time.Time) error { return bad }, "bad"},
	} {
		runs := 0
		srv := &server{who: "a server", close: func() error { runs--; return nil }, again: func(context.Context) error { runs++; return nil }}
		err := running(t.Context(), u, srv, tc.do)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, tc.want)
		}
		if runs != 0 {
			t.Errorf("%s: %d still run", name, runs)
		}
	}
}

func TestBlobSteps(t *testing.T) {
	t.Parallel()
	for most, want := range map[int][]int{
		7: {7}, 1000: {1000}, 3000: {1000, 3000}, 20_000: {1000, 3000, 10_000, 20_000}, 100_000: {1000, 3000, 10_000, 30_000, 100_000},
	} {
		if got := blobSteps(most); !slices.Equal(got, want) {
			t.Errorf("up to %d: %v, want %v", most, got, want)
		}
	}
}
