package remotes

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cache/disktest"
	"github.com/larder-project/larder/remotes/remotestest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// as ever.
func TestPrefetchBringsNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change  func(*testing.T, *setup)
		prepare func(*bench, *remotestest.Registry)
		refuses bool // clients, too
	}{
		"off": {change: func(_ *testing.T, s *setup) { s.prefetch = Prefetch{} }},
		"one connection for blobs": {change: func(_ *testing.T, s *setup) {
			s.upstream.MaxConnections = 2
		}},
		"larger than the budget": {change: func(_ *testing.T, s *setup) {
			s.budget = cache.Budget{MaxSize: cache.Amount{Bytes: 1 << 20}}
		}},
		"beyond the high mark": {change: func(_ *testing.T, s *setup) {
			s.budget = cache.Budget{MaxSize: cache.Amount{Bytes: 1 << 40}, High: 1e-9, Low: 1e-9}
		}},
		"allowance is low": {
			change:  func(_ *testing.T, s *setup) { reserving(s) },
			prepare: func(_ *bench, up *remotestest.Registry) { up.Fault(remotestest.Manifests(), allows(5)) },
		},
		"offline": {
			change: func(t *testing.T, s *setup) { withSettings(t, Settings{Mode: ModeOffline})(s) }, refuses: true,
		},
		"denied": {
			change: func(t *testing.T, s *setup) { withSettings(t, Settings{Deny: []string{"*"}})(s) }, refuses: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{1 << 20, 1000}})
			b, up := one(t, img, prefetching(4), func(s *setup) {
				if c.change != nil {
					c.change(t, s)
				}
			})
			b.live()
			if c.prepare != nil {
				c.prepare(b, up)
			}
			if c.refuses {
				// As a manifest that was stored before that became so.
				m := Manifest{Resolved: Resolved{Descriptor: img.Root, Outcome: Hit}, Data: img.Manifests[0].Data}
				if err := b.Store.Put(soon(t), img.Root.Digest, m.Data, cache.Facts{}); err != nil {
					t.Fatal(err)
				}
				if err := b.noteLink(appRepo(), img.Root.Digest); err != nil {
					t.Fatal(err)
				}
				b.ExpectPull(appRepo(), m)
				b.notePull(soon(t), appRepo(), inOrder(img)[1])
			} else {
				b.begin(soon(t), app(t, img.Root.Digest.String()), inOrder(img)[1])
			}
			b.prefetched()
			wantOnce(t, up, nil)
			if _, _, err := b.read(appRepo(), img.Blobs[0].Descriptor.Digest); (err != nil) != c.refuses {
				t.Errorf("a client that asks itself: %v", err)
			}
		})
	}
}

// TestPrefetchLeavesUpstreamAlone: an upstream that answers 429 is not asked for the
// rest, and one blob that fails ends it.
func TestPrefetchLeavesUpstreamAlone(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]remotestest.FaultFunc{
		"429": remotestest.TooManyRequests(time.Hour),
		"404": remotestest.Error(http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := layers(1, 6)
			b, up := one(t, img, prefetching(1))
			b.live()
			up.Fault(remotestest.Blobs(), fault)
			b.begin(soon(t), app(t, img.Root.Digest.String()), inOrder(img)[1])
			b.prefetched()
			b.notePull(soon(t), appRepo(), inOrder(img)[2])
			b.prefetched()
			wantOnce(t, up, inOrder(img)[:1])
		})
	}
}

// TestPrefetchOfFailingDisk: a blob that the disk does not take any more, and nobody
// reads, ends at once, and on such a disk none is begun.
func TestPrefetchOfFailingDisk(t *testing.T) {
	t.Parallel()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{1 << 20, 1 << 20}})
	want := inOrder(img)
	disk := disktest.NewFaulty(cache.OSDisk())
	b, up := one(t, img, prefetching(1), func(s *setup) { s.disk = disk })
	b.live()
	if _, _, err := b.read(appRepo(), want[0]); err != nil {
		t.Fatal(err)
	}
	b.settle(want[0])
	up.ResetRequests()
	release := make(chan struct{})
	up.Fault(remotestest.Blobs(), remotestest.Gate(100_000, release))
	up.Fault(remotestest.Blobs(), remotestest.HangBody(600_000))
	m := b.begin(soon(t), app(t, img.Root.Digest.String()), inOrder(img)[1])
	awaitAsked(t, up, 1)
	eventually(t, "a part has come", func() bool {
		all, err := b.Store.ListStatuses(soon(t))
		return err == nil && len(all) == 1 && all[0].Offset >= 100_000
	})
	disk.FailFrom(1, syscall.EROFS, disktest.Write)
	close(release)
	b.prefetched()
	if err := up.Await(soon(t), func(reqs []remotestest.Request) bool { return busy(reqs) == 0 }); err != nil {
		t.Errorf("a fill that nobody reads and the disk does not take goes on: %v", err)
	}
	if b.Store.Health().State != cache.StateDegraded {
		t.Fatalf("the store is %+v", b.Store.Health())
	}
	b.ExpectPull(appRepo(), m)
	b.notePull(soon(t), appRepo(), inOrder(img)[1])
	b.prefetched()
	wantOnce(t, up, want[1:2])
}

// TestPrefetchOfLongerBlob: what is longer than the manifest says is not brought
// ahead, and a client that waits for it gets it all the same.
func TestPrefetchOfLongerBlob(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	b := newBench(t, []*remotestest.Registry{up}, prefetching(4))
	b.live()
	config := up.PutBlob("library/app", []byte("{}"))
	config.MediaType = ocispec.MediaTypeImageConfig
	layer := up.PutBlob("library/app", []byte(strings.Repeat("layer", 1000)))
	layer.MediaType, layer.Size = ocispec.MediaTypeImageLayerGzip, 5
	root := up.PutManifest("library/app", "1", ocispec.MediaTypeImageManifest, mustJSON(t, ocispec.Manifest{
		Versioned: versioned(), MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer},
	}))
	release := make(chan struct{})
	up.Fault(remotestest.Digest(layer.Digest), remotestest.GateHeader(release))
	b.begin(soon(t), app(t, root.Digest.String()), layer.Digest)
	awaitAsked(t, up, 2)
	got := make(chan error)
	go func() {
		data, _, err := b.read(appRepo(), layer.Digest)
		if err == nil && len(data) != 5000 {
			err = io.ErrShortBuffer
		}
		got <- err
	}()
	eventually(t, "the client waits for it", func() bool { return b.Store.IsRead(layer.Digest) })
	close(release)
	if err := <-got; err != nil {
		t.Error(err)
	}
	b.prefetched()
}

// long upstream takes, and nothing begins anew.
func TestPrefetchEndsWithRun(t *testing.T) {
	t.Parallel()
	img := layers(1, 9)
	b, up := one(t, img, prefetching(3))
	stop := b.live()
	up.Fault(remotestest.Blobs(), remotestest.Hang())
	m := b.begin(soon(t), app(t, img.Root.Digest.String()), inOrder(img)[1])
	awaitAsked(t, up, 3)
	stop()
	b.prefetched()
	b.ExpectPull(appRepo(), m)
	b.notePull(soon(t), appRepo(), inOrder(img)[1])
	b.prefetched()
	if got := blobsIn(up.Requests()); len(got) != 3 {
		t.Errorf("upstream was asked for %d blobs, want 3", len(got))
	}
}

// TestPrefetchOfRemovedImage: what is left of an image that is removed is not begun.
func TestPrefetchOfRemovedImage(t *testing.T) {
	t.Parallel()
	img := layers(1, 9)
	ref := app(t, img.Root.Digest.String())
	b, up := one(t, img, prefetching(2))
	b.live()
	release := make(chan struct{})
	up.Fault(remotestest.Blobs(), remotestest.GateHeader(release))
	b.begin(soon(t), ref, inOrder(img)[1])
	awaitAsked(t, up, 2)
	if _, err := b.Remove(soon(t), ref); err != nil {
		t.Fatal(err)
	}
	close(release)
	b.prefetched()
	if got := blobsIn(up.Requests()); len(got) != 2 {
		t.Errorf("upstream was asked for %d blobs, want 2", len(got))
	}
}
