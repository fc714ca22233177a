package mirror

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
)

// BenchmarkScrub measures what a scrub at its default rate costs those who
// pull: the slowest hundredth of hits, in windows of a second with it and
// without it by turns.
func BenchmarkScrub(b *testing.B) {
	const clients, hot, cold, size = 8, 32, 400, 4 << 20
	discard := slog.New(slog.DiscardHandler)
	store, err := cache.Open(b.TempDir(), cache.WithLogger(discard))
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	put := func(i, size int) digest.Digest {
		data := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), 1}).Read(data)
		dgst := digest.FromBytes(data)
		if err := store.Put(b.Context(), dgst, data, cache.Facts{}); err != nil {
			b.Fatal(err)
		}
		return dgst
	}
	var urls []string
	for i := range hot {
		urls = append(urls, "/v2/library/app/blobs/"+put(i, 256<<10).String()+"?ns=docker.io")
	}
	for i := range cold {
		put(hot+i, size)
	}
	pool, err := upstream.NewPool(upstream.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	registry := remotes.NewRegistry(remotes.Config{Store: store, Pool: pool, Freshness: remotes.DefaultFreshness(), Logger: discard})
	server := httptest.NewServer(New(registry, Options{Map: registry.Names.Map, Wait: time.Second, Logger: discard}))
	defer server.Close()

	var off, on []time.Duration
	var read int64
	for b.Loop() {
		off = append(off, hits(b, server.URL, urls, clients)...)
		ctx, cancel := context.WithCancel(b.Context())
		var wg sync.WaitGroup
		wg.Go(func() { store.Scrub(ctx, cache.ScrubPolicy{Rate: 16 << 20, Period: time.Nanosecond}, nil) })
		before, _ := store.ScrubState()
		on = append(on, hits(b, server.URL, urls, clients)...)
		cancel()
		wg.Wait()
		if after, err := store.ScrubState(); err == nil && after.Bytes > before.Bytes {
			read += after.Bytes - before.Bytes
		}
	}
	b.ReportMetric(float64(p99(off).Microseconds()), "p99-off-µs")
	b.ReportMetric(float64(p99(on).Microseconds()), "p99-on-µs")
	b.ReportMetric(float64(read)/1e6/float64(b.N), "scrubbed-MB/s")
}

func p99(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)*99/100]
}

// hits has clients pull for a second, and returns how long each pull took.
func hits(b *testing.B, base string, urls []string, clients int) (all []time.Duration) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Second)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				if err := hit(ctx, base+urls[rand.IntN(len(urls))]); err != nil && ctx.Err() == nil {
					b.Error(err)
					return
				}
				mu.Lock()
				all = append(all, time.Since(began))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all
}

func hit(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
