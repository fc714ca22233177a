package remotes

import (
	"context"
	"io"
	"net/http"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestBlobOutcomes(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1), func(s *setup) { s.upstream.HeaderTimeout = 0 })
	data := make([]byte, 3<<20)
	desc := up.PutBlob("library/app", data)
	release := make(chan struct{})
	up.Fault(remotestest.Blobs(), remotestest.Gate(2<<20, release))
	ctx := soon(t)
	first, err := b.Blob(ctx, ctx, appRepo(), desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Blob(ctx, ctx, appRepo(), desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if first.Outcome != Miss || second.Outcome != Fill || first.Size != desc.Size || second.Size != desc.Size {
		t.Errorf("got %q of %d and %q of %d, want miss and fill of %d", first.Outcome, first.Size, second.Outcome, second.Size, desc.Size)
	}
	if err := first.Close(); err != nil { // who began it leaves
		t.Error(err)
	}
	close(release)
	if got, err := io.ReadAll(second); err != nil || digest.FromBytes(got) != desc.Digest {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	b.settle(desc.Digest)
	if got, outcome, err := b.read(appRepo(), desc.Digest); err != nil || outcome != Hit || digest.FromBytes(got) != desc.Digest {
		t.Errorf("got %d bytes, %q, %v, want a hit", len(got), outcome, err)
	}
	if n := up.Count(http.MethodGet, "/blobs/"); n != 1 {
		t.Errorf("upstream saw %d GETs, want 1", n)
	}
}

// A client that does not get a first byte in time is refused; the fill goes on.
func TestBlobWaitIsBounded(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1), func(s *setup) { s.upstream.HeaderTimeout = 0 })
	desc := up.PutBlob("library/app", []byte("late"))
	release := make(chan struct{})
	up.Fault(remotestest.Blobs(), remotestest.GateHeader(release))
	arrive, leave := context.WithCancel(t.Context())
	go func() {
		_ = up.Await(t.Context(), func(reqs []remotestest.Request) bool { return len(reqs) == 1 })
		leave()
	}()
	if blob, err := b.Blob(arrive, t.Context(), appRepo(), desc.Digest); !errdefs.IsCanceled(err) || blob != nil {
		t.Errorf("got %v, %v, want the end of the wait", blob, err)
	}
	close(release)
	eventually(t, "the fill ends", func() bool {
		has, err := b.Store.Has(desc.Digest)
		return has && err == nil
	})
}

// Somebody shortened or lengthened a stored blob: it is not served as it is,
// but fetched again.
func TestDamagedBlobIsFetchedAgain(t *testing.T) {
	t.Parallel()
	for name, damaged := range map[string]string{"short": "wh", "empty": "", "longer": "whole and more"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, up := one(t, build(1))
			desc := up.PutBlob("library/app", []byte("whole"))
			if _, outcome, err := b.read(appRepo(), desc.Digest); err != nil || outcome != Miss {
				t.Fatalf("got %q, %v", outcome, err)
			}
			b.settle(desc.Digest)
			b.damage(b.blobFile(desc.Digest), []byte(damaged))
			if data, outcome, err := b.read(appRepo(), desc.Digest); err != nil || outcome != Miss || string(data) != "whole" {
				t.Errorf("got %q, %q, %v, want it fetched again", data, outcome, err)
			}
			b.settle(desc.Digest)
			up.Stop()
			if data, outcome, err := b.read(appRepo(), desc.Digest); err != nil || outcome != Hit || string(data) != "whole" {
				t.Errorf("got %q, %q, %v, want a hit", data, outcome, err)
			}
			b.damage(b.blobFile(desc.Digest), []byte(damaged))
			if data, _, err := b.read(appRepo(), desc.Digest); err == nil {
				t.Errorf("damaged, and no upstream: got %q, want an error", data)
			}
		})
	}
}

// A size that a manifest claims is no reason to throw a blob away.
func TestClaimedSizeDoesNotDamage(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	layer := up.PutBlob("library/app", []byte("layer"))
	config := up.PutBlob("library/app", []byte(`{"os":"linux","architecture":"amd64"}`))
	lie := layer
	lie.Size = 1 << 40
	up.PutManifest("library/app", "1", "application/vnd.oci.image.manifest.v1+json",
		mustJSON(t, map[string]any{"schemaVersion": 2, "config": config, "layers": []any{lie}}))
	b := newBench(t, []*remotestest.Registry{up})
	b.resolve(app(t, "1"), Miss) // the claim is noted
	for i, want := range []Outcome{Miss, Hit, Hit} {
		if data, outcome, err := b.read(appRepo(), layer.Digest); err != nil || outcome != want || string(data) != "layer" {
			t.Errorf("read %d: got %q, %q, %v, want %q", i, data, outcome, err, want)
		}
		b.settle(layer.Digest)
	}
	if res, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil || res.Bytes > 1<<20 {
		t.Errorf("pull says %d bytes, %v, want the true sizes", res.Bytes, err)
	}
}

// A crash came between publish and index: of the blob only a claim is known,
// and that may be wrong.
func TestBlobWithoutFactsIsServed(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	dgst := digest.FromString("whole")
	if err := b.Store.NoteDescriptors([]ocispec.Descriptor{{Digest: dgst, Size: 1 << 40}}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.blobFile(dgst), []byte("whole"), 0o444); err != nil {
		t.Fatal(err)
	}
	if data, outcome, err := b.read(appRepo(), dgst); err != nil || outcome != Hit || string(data) != "whole" {
		t.Errorf("got %q, %q, %v, want a hit", data, outcome, err)
	}
}

// An upstream that sent bytes that did not make the blob comes last for it.
func TestNextUpstreamAfterBadBytes(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]remotestest.FaultFunc{
		"wrong":   remotestest.WrongBytes(3),
		"short":   remotestest.ShortBody(3),
		"chunked": remotestest.ShortChunked(3),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := remotestest.New(t), remotestest.New(t)
			desc := first.PutBlob("library/app", []byte("whole"))
			second.PutBlob("library/app", []byte("whole"))
			first.Fault(remotestest.Blobs(), f)
			b := newBench(t, []*remotestest.Registry{first, second})
			if data, _, err := b.read(appRepo(), desc.Digest); err == nil && string(data) != "whole" {
				t.Fatalf("got %q with a clean end", data)
			}
			if data, _, err := b.read(appRepo(), desc.Digest); err != nil || string(data) != "whole" {
				t.Errorf("the next time: got %q, %v, want the second upstream's bytes", data, err)
			}
			// For other blobs the route's order stands.
			other := first.PutBlob("library/app", []byte("another"))
			second.PutBlob("library/app", []byte("another"))
			n := counted(second, func() { _, _, _ = b.read(appRepo(), other.Digest) })
			if n != 0 {
				t.Errorf("for another blob the second upstream was asked first")
			}
		})
	}
}

func TestBlobErrors(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1))
	if _, _, err := b.read(appRepo(), emptyDigest); !errdefs.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
	up.Fault(remotestest.Blobs(), remotestest.TooManyRequests(0))
	if _, _, err := b.read(appRepo(), emptyDigest); !errdefs.IsResourceExhausted(err) {
		t.Errorf("got %v, want resource exhausted", err)
	}
	if _, _, err := b.read(appRepo(), "sha256:../../x"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v, want an invalid digest refused", err)
	}
}
