package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/larder-project/larder/integration/bench/figures"
)

const (
	// giveUp is when containerd would have given up by itself, and some more.
	giveUp = 35 * time.Second
	// later is how many answers follow the first.
	later = 20
)

func deadUpstream() experiment {
	return experiment{
		name: "dead upstream",
		about: "HEAD by a tag that is stored and has to be checked, after upstream has gone: it refuses connections, takes them and says nothing, or its packets are dropped. " +
			"The first answer, and the slowest of the 20 that follow at once. larder has freshness.window = \"0s\": every one of them would be checked. " +
			"containerd gives up after 30 s: who has not answered after 35 s has that figure. Who took more than 10 s is not asked again, nor in the rounds that follow.",
		run: runDeadUpstream,
	}
}

func after(how death, what string) string { return string(how) + ": " + what }

func runDeadUpstream(ctx context.Context, sc *scene) error {
	img, err := sc.images.add(ctx, eightLayers("library/small", 2, 2<<20))
	if err != nil {
		return err
	}
	u, err := sc.upstream()
	if err != nil {
		return err
	}
	for _, how := range []death{refused, silent, dropped} {
		first := 5.0
		if how != refused {
			first = 1005 // one time-out of a second, and the answer
		}
		sc.sheet.row(after(how, "first answer"), "ms", figures.Less, "", figures.Goal{Bound: first})
		sc.sheet.row(after(how, "slowest of the next 20"), "ms", figures.Less, "", figures.Goal{Bound: 5})
	}
	stale := pullThrough{larder, func(ctx context.Context, dir, base string) (*server, error) {
		return sc.startLarder(ctx, sc.bin, dir, base, "freshness.window = \"0s\"")
	}}
	var all []contestant
	for _, kind := range []pullThrough{stale, sc.registries()[0]} {
		all = append(all, contestant{kind.who, func(ctx context.Context, m *measured) error {
			for _, how := range []death{refused, silent, dropped} {
				if kind.who != larder && how != refused && m.round > 1 {
					continue // it has been waited for long enough
				}
				if err := measureDead(ctx, sc, kind, u, img, how, m); err != nil {
					return fmt.Errorf("%s: %w", how, err)
				}
			}
			return nil
		}})
	}
	return sc.coldRounds(ctx, all...)
}

func measureDead(ctx context.Context, sc *scene, kind pullThrough, u *upstream, img *image, how death, m *measured) error {
	f, err := startFront(ctx, u.Addr())
	if err != nil {
		return err
	}
	// The front goes last: it is what a server that ends may still wait for.
	return errors.Join(sc.cold(ctx, kind, "http://"+f.addr.String(), func(srv *server) error {
		if err := srv.fetchImage(ctx, img); err != nil {
			return err
		}
		if err := f.die(ctx, how); err != nil {
			return err
		}
		answered, err := srv.timeHead(ctx, img, kind.who == larder)
		if err != nil {
			return err
		}
		m.set(after(how, "first answer"), milliseconds(answered))
		if answered >= giveUp {
			sc.sheet.note("%s, %s: no answer", kind.who, how)
		}
		if kind.who != larder && answered >= 10*time.Second {
			return nil // 20 more of these
		}
		slowest := time.Duration(0)
		for range later {
			answered, err := srv.timeHead(ctx, img, kind.who == larder)
			if err != nil {
				return err
			}
			slowest = max(slowest, answered)
		}
		m.set(after(how, "slowest of the next 20"), milliseconds(slowest))
		return nil
	}), f.Close())
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// timeHead is one HEAD by tag: how long the answer took, at most giveUp. must says that
// no answer, or another one than what is stored, is an error.
func (s *server) timeHead(ctx context.Context, img *image, must bool) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://"+s.addr+s.manifestPath(img, tag), nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Accept", acceptManifest)
	began := time.Now()
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	took := time.Since(began)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		if must {
			return took, fmt.Errorf("%s: no answer to HEAD of a stored tag after %v: %w", s.who, giveUp, err)
		}
		return giveUp, nil
	}
	if err != nil {
		return took, fmt.Errorf("%s: %w", s.who, err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); must && (resp.StatusCode != http.StatusOK || got != img.manifest.Digest.String()) {
		return took, fmt.Errorf("%s: HEAD of a stored tag: %s, %s, want %s", s.who, resp.Status, got, img.manifest.Digest)
	}
	return took, nil
}
