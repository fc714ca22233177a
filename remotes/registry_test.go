package remotes

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/larder-project/larder/remotes/upstream"
)

// By digest nothing is asked twice: manifests and blobs that are in the store
// need no upstream.
func TestDigestNeedsNoUpstream(t *testing.T) {
	t.Parallel()
	img := remotestest.Build(remotestest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	b, up := one(t, img)
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{Platforms: []string{"all"}}); err != nil {
		t.Fatal(err)
	}
	up.Stop()
	for _, m := range img.Manifests {
		got, err := b.Manifest(soon(t), app(t, m.Descriptor.Digest.String()))
		if err != nil || got.Outcome != Hit || string(got.Data) != string(m.Data) || got.Descriptor.MediaType != m.Descriptor.MediaType {
			t.Errorf("manifest %s: got %v, %v", m.Descriptor.Digest, got.Resolved, err)
		}
	}
	for _, blob := range img.Blobs {
		data, outcome, err := b.read(app(t, "1").Repository, blob.Descriptor.Digest)
		if err != nil || outcome != Hit || string(data) != string(blob.Data) {
			t.Errorf("blob %s: got %d bytes, %q, %v", blob.Descriptor.Digest, len(data), outcome, err)
		}
	}
}

// An upstream of a route that fails in any way is followed by the next one.
func TestRouteFallsThrough(t *testing.T) {
	t.Parallel()
	img := build(1)
	for name, f := range map[string]remotestest.FaultFunc{
		"404":   remotestest.Error(http.StatusNotFound, "NAME_UNKNOWN", "unknown"),
		"401":   remotestest.Error(http.StatusUnauthorized, "UNAUTHORIZED", "who"),
		"403":   remotestest.Error(http.StatusForbidden, "DENIED", "no"),
		"429":   remotestest.TooManyRequests(time.Hour),
		"500":   remotestest.Error(http.StatusInternalServerError, "UNKNOWN", "down"),
		"hang":  remotestest.Hang(),
		"abort": remotestest.Abort(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := remotestest.New(t), remotestest.New(t)
			first.PutImage("library/app", "1", img)
			second.PutImage("library/app", "1", img)
			first.Fault(remotestest.Any(), f)
			b := newBench(t, []*remotestest.Registry{first, second}, withFault(name))
			ref := app(t, "1")
			b.resolve(ref, Miss)
			layer := img.Blobs[len(img.Blobs)-1]
			if data, _, err := b.read(ref.Repository, layer.Descriptor.Digest); err != nil || string(data) != string(layer.Data) {
				t.Errorf("layer: got %d bytes, %v", len(data), err)
			}
			tag, err := b.Store.Tag(ref.String())
			if err != nil || tag.Source != second.URL() {
				t.Errorf("tag came from %q, %v, want the second upstream", tag.Source, err)
			}
			if len(first.Requests()) == 0 {
				t.Error("the first upstream was not asked")
			}
			if list, err := b.Tags(soon(t), ref.Repository, 0, ""); err != nil || len(list.Tags) != 1 {
				t.Errorf("tags: got %v, %v", list, err)
			}
		})
	}
}

// The first upstream that has it serves it, and no other is asked.
func TestRouteStopsAtSuccess(t *testing.T) {
	t.Parallel()
	first, second := remotestest.New(t), remotestest.New(t)
	first.PutImage("library/app", "1", build(1))
	b := newBench(t, []*remotestest.Registry{first, second})
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := len(second.Requests()); n != 0 {
		t.Errorf("the second upstream saw %d requests, want 0", n)
	}
}

// Of several errors the caller gets the one that tells most: "not found" only
// if all say so.
func TestMostTellingErrorWins(t *testing.T) {
	t.Parallel()
	notFound := remotestest.Error(http.StatusNotFound, "MANIFEST_UNKNOWN", "unknown")
	denied := remotestest.Error(http.StatusForbidden, "DENIED", "no")
	down := remotestest.Error(http.StatusBadGateway, "UNKNOWN", "down")
	limited := remotestest.TooManyRequests(0)
	for name, c := range map[string]struct {
		faults [2]remotestest.FaultFunc
		is     func(error) bool
	}{
		"all not found":     {[2]remotestest.FaultFunc{notFound, notFound}, errdefs.IsNotFound},
		"denied second":     {[2]remotestest.FaultFunc{notFound, denied}, errdefs.IsPermissionDenied},
		"denied first":      {[2]remotestest.FaultFunc{denied, notFound}, errdefs.IsPermissionDenied},
		"down second":       {[2]remotestest.FaultFunc{notFound, down}, errdefs.IsUnavailable},
		"limited, not down": {[2]remotestest.FaultFunc{limited, down}, errdefs.IsResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := remotestest.New(t), remotestest.New(t)
			first.Fault(remotestest.Any(), c.faults[0])
			second.Fault(remotestest.Any(), c.faults[1])
			b := newBench(t, []*remotestest.Registry{first, second})
			if _, err := b.Resolve(soon(t), app(t, "1")); !c.is(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// That the upstreams asked so far do not have it says nothing of the others.
func TestTimeUpIsNotNotFound(t *testing.T) {
	t.Parallel()
	first, second := remotestest.New(t), remotestest.New(t)
	b := newBench(t, []*remotestest.Registry{first, second})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	asked := 0
	err := b.tryUpstreams(ctx, app(t, "1").Repository, b.Routes.For(DockerHub), func(*upstream.Client) error {
		asked++
		cancel()
		return errdefs.ErrNotFound
	})
	if errdefs.IsNotFound(err) || !errdefs.IsCanceled(err) || asked != 1 {
		t.Errorf("%d upstreams asked: got %v, want the end of the context and not \"not found\"", asked, err)
	}
}
