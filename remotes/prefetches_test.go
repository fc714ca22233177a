package remotes

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// busy is how many requests for blobs are being answered.
func busy(reqs []remotestest.Request) (n int) {
	for _, q := range reqs {
		if strings.Contains(q.Path, "/blobs/") && !q.Done {
			n++
		}
	}
	return n
}

// for nothing any more costs no more blobs, and who still reads one does.
func TestPrefetchPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, err := cache.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		r := NewRegistry(Config{Store: store})
		data := []byte("layer")
		dgst := digest.FromBytes(data)
		if err := store.Put(t.Context(), dgst, data, cache.Facts{}); err != nil {
			t.Fatal(err)
		}
		running, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); r.prefetches.keep(running) }()
		synctest.Wait()
		key := imageKey{repo: appRepo(), digest: "sha256:x"}
		blobs := []ocispec.Descriptor{{Digest: "sha256:config"}, {Digest: dgst}}
		r.prefetches.expect(newPrefetch(key, blobs))
		pass := func(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // virtual time
		pass(prefetchPatience - 1)
		if !r.prefetches.isExpected(key) {
			t.Error("forgotten too soon")
		}
		if repo, ok := r.prefetches.repositoryOf(dgst); !ok || repo != appRepo() {
			t.Errorf("its blob is of %s, %t", repo, ok)
		}
		pass(prefetchPatience)
		if repo, ok := r.prefetches.repositoryOf(dgst); ok {
			t.Errorf("its blob is of %s, long after the manifest", repo)
		}
		if _, p := r.prefetches.asked(t.Context(), appRepo(), dgst); p != nil || r.prefetches.isExpected(key) {
			t.Error("begun long after the manifest")
		}
		r.prefetches.expect(newPrefetch(key, blobs))
		if _, p := r.prefetches.asked(t.Context(), publicC(), dgst); p != nil {
			t.Error("begun by a client of another repository")
		}
		ctx, p := r.prefetches.asked(t.Context(), appRepo(), dgst)
		if p == nil {
			t.Fatal("not begun")
		}
		if _, again := r.prefetches.asked(t.Context(), appRepo(), dgst); again != nil {
			t.Error("begun twice")
		}
		pass(prefetchPatience - 1)
		if !r.isPulled(p) {
			t.Error("not pulled, although a client has just asked")
		}
		blob, err := store.OpenVerified(t.Context(), dgst)
		if err != nil {
			t.Fatal(err)
		}
		pass(prefetchPatience)
		if !r.isPulled(p) {
			t.Error("not pulled, although a client reads a blob")
		}
		blob.Close()
		if r.isPulled(p) {
			t.Error("pulled, although nobody asks or reads any more")
		}
		stop()
		<-ctx.Done()
		r.prefetches.end(p)
		<-ended
		r.prefetches.expect(newPrefetch(key, blobs))
		if r.prefetches.isExpected(key) {
			t.Error("expected after the end")
		}
	})
}

// TestPrefetchesAreBounded: of too many images that are expected the oldest is
// forgotten, and none that is prefetched.
func TestPrefetchesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ps := newPrefetches()
		running, stop := context.WithCancel(t.Context())
		go ps.keep(running)
		synctest.Wait()
		key := func(i int) imageKey { return imageKey{repo: appRepo(), digest: digest.FromString(string(rune(i)))} }
		var begun *prefetch
		for i := range maxPrefetches + 2 {
			time.Sleep(time.Second) //nolint:forbidigo // virtual time
			layer := digest.FromString("layer" + string(rune(i)))
			ps.expect(newPrefetch(key(i), []ocispec.Descriptor{{Digest: "sha256:config"}, {Digest: layer}}))
			if i == 0 {
				_, begun = ps.asked(t.Context(), appRepo(), layer)
			}
		}
		if len(ps.images) != maxPrefetches || ps.images[key(0)] != begun || ps.isExpected(key(1)) || ps.isExpected(key(2)) || !ps.isExpected(key(3)) {
			t.Errorf("%d images, want the one that is prefetched and the newest", len(ps.images))
		}
		stop()
		ps.end(begun)
	})
}

// TestPrefetchSeatsAreBounded: where clients have all connections the wait ends.
func TestPrefetchSeatsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ps := newPrefetches()
		var seats []*seat
		for range maxSeats {
			s, err := ps.sit(t.Context(), 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			seats = append(seats, s)
		}
		begun := time.Now()
		if _, err := ps.sit(t.Context(), 1, nil); !errors.Is(err, errNoSeat) || time.Since(begun) != prefetchPatience {
			t.Errorf("a seat too many: %v after %s", err, time.Since(begun))
		}
		if got := ps.unreserved(); got != maxSeats {
			t.Errorf("%d bytes are unreserved", got)
		}
		go seats[0].leave()
		if s, err := ps.sit(t.Context(), 1, nil); err != nil || time.Since(begun) != prefetchPatience {
			t.Errorf("%v, %v after %s, want the seat that was left", s, err, time.Since(begun))
		}
	})
}

// goes on where it was when a client asks.
func TestPrefetchMakesWay(t *testing.T) {
	t.Parallel()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: slices.Repeat([]int64{1 << 20}, 9)})
	want := inOrder(img)[1:]
	// Of 8 connections 6 are for blobs, of which a prefetch takes 3.
	b, up := one(t, img, prefetching(6), func(s *setup) { s.upstream.MaxConnections = 8 })
	b.live()
	if _, _, err := b.read(appRepo(), inOrder(img)[0]); err != nil { // the config is stored
		t.Fatal(err)
	}
	b.settle(inOrder(img)[0])
	up.ResetRequests()
	const part = 100_000
	release := make(chan struct{})
	remove := up.Fault(remotestest.Blobs(), remotestest.Gate(part, release))
	b.begin(soon(t), app(t, img.Root.Digest.String()), inOrder(img)[1])
	first := awaitAsked(t, up, 3)
	eventually(t, "a part of each has come", func() bool {
		all, err := b.Store.ListStatuses(soon(t))
		return err == nil && len(all) == 3 && !slices.ContainsFunc(all, func(st content.Status) bool { return st.Offset < part })
	})
	left := slices.DeleteFunc(slices.Clone(want), func(d digest.Digest) bool { return slices.Contains(first, d) })
	var clients sync.WaitGroup
	read := func(dgst digest.Digest) {
		clients.Go(func() {
			if data, _, err := b.read(appRepo(), dgst); err != nil || digest.FromBytes(data) != dgst {
				t.Errorf("a client got %d bytes of %s, %v", len(data), dgst, err)
			}
		})
	}
	for i := range 3 { // they have the other half
		read(left[i])
		awaitAsked(t, up, 4+i)
	}
	if n := busy(up.Requests()); n != 6 {
		t.Errorf("%d blobs are on their way, want 6", n)
	}
	read(left[3])
	if got := awaitAsked(t, up, 7); got[6] != left[3] {
		t.Errorf("then upstream was asked for %s, want the client's", got[6])
	}
	if err := up.Await(soon(t), func(reqs []remotestest.Request) bool { return busy(reqs) == 6 }); err != nil {
		t.Error(err)
	}
	remove()
	close(release)
	clients.Wait()
	b.prefetched()
	for _, dgst := range first {
		read(dgst)
	}
	clients.Wait()
	again := slices.DeleteFunc(up.Requests(), func(q remotestest.Request) bool { return q.Header.Get("Range") == "" })
	if len(again) != 1 || !slices.Contains(first, blobsIn(again)[0]) {
		t.Errorf("%d blobs were gone on with, want the one that made way: %v", len(again), blobsIn(again))
	}
}
