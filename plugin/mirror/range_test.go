package mirror

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// noise is n bytes that do not repeat.
func noise(seed byte, n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data) // never fails
	return data
}

// rangeCase is a Range and what it means for a blob of size bytes: status, and
// for 206 first byte and length.
type rangeCase struct {
	header        string
	status        int
	first, length int64
}

func rangeCases(size int64) []rangeCase {
	last := size - 1
	return []rangeCase{
		{"", 200, 0, size},
		{"bytes=0-0", 206, 0, 1},
		{"bytes=0-", 206, 0, size},
		{"bytes=100-199", 206, 100, 100},
		{fmt.Sprintf("bytes=%d-", last), 206, last, 1},
		{fmt.Sprintf("bytes=%d-%d", size/2, 2*size), 206, size / 2, size - size/2},
		{"bytes=-1", 206, last, 1},
		{"bytes=-100", 206, size - 100, 100},
		{fmt.Sprintf("bytes=-%d", 2*size), 206, 0, size},
		{fmt.Sprintf("bytes=%d-", size), 416, 0, 0},
		{"bytes=9223372036854775807-", 416, 0, 0},
		{"bytes=9223372036854775808-", 416, 0, 0},
		{"bytes=0-9223372036854775808", 416, 0, 0},
		{"bytes=--1", 416, 0, 0},
		{"bytes=5-4", 416, 0, 0},
		{"bytes=x-y", 416, 0, 0},
		{"lines=1-2", 416, 0, 0},
		// Several at once, or none of the bytes, may be answered whole.
		{"bytes=-0", 200, 0, size},
		{"bytes=-000", 200, 0, size},
		{"bytes= -0 ", 200, 0, size},
		{"bytes=-", 200, 0, size},
		{"bytes=0-0,5-6", 200, 0, size},
		{"bytes=0-0, -1", 200, 0, size},
	}
}

func (c rangeCase) check(t *testing.T, a answer, whole []byte) {
	t.Helper()
	if a.status != c.status || a.err != nil {
		t.Errorf("%q: status %d, %v, want %d", c.header, a.status, a.err, c.status)
		return
	}
	size := int64(len(whole))
	switch want := fmt.Sprintf("bytes %d-%d/%d", c.first, c.first+c.length-1, size); {
	case c.status == 206 && a.header.Get("Content-Range") != want:
		t.Errorf("%q: Content-Range %q, want %q", c.header, a.header.Get("Content-Range"), want)
	case c.status == 416 && c.header != "" && a.header.Get("ETag") != "":
		t.Errorf("%q: 416 with an ETag", c.header)
	}
	if c.status != 416 && (a.length != c.length || !bytes.Equal(a.body, whole[c.first:c.first+c.length])) {
		t.Errorf("%q: %d bytes, length %d, want the %d from %d", c.header, len(a.body), a.length, c.length, c.first)
	}
}

func TestRangeOfHit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	whole := noise(1, 70_000)
	desc := b.up.PutBlob("library/app", whole)
	b.get(blobPath(desc.Digest))
	b.settle(desc.Digest)
	for _, c := range rangeCases(desc.Size) {
		a := b.ask(http.MethodGet, blobPath(desc.Digest), rangeHeader(c.header)...)
		c.check(t, a, whole)
		if got := a.header.Get(CacheHeader); got != "hit" {
			t.Errorf("%q: X-Larder-Cache %q, want hit", c.header, got)
		}
		head := b.ask(http.MethodHead, blobPath(desc.Digest), rangeHeader(c.header)...)
		if head.status != a.status || head.header.Get("Content-Range") != a.header.Get("Content-Range") {
			t.Errorf("%q: HEAD is %d %q, GET %d %q", c.header, head.status, head.header.Get("Content-Range"), a.status, a.header.Get("Content-Range"))
		}
	}
	etag := `"` + desc.Digest.String() + `"`
	for match, want := range map[string]int{etag: 206, `"other"`: 200} {
		if a := b.ask(http.MethodGet, blobPath(desc.Digest), "Range", "bytes=1-2", "If-Range", match); a.status != want {
			t.Errorf("If-Range %s: %d, want %d", match, a.status, want)
		}
	}
}

func rangeHeader(text string) []string {
	if text == "" {
		return nil
	}
	return []string{"Range", text}
}

// A range of a blob that is still arriving: headers at once, bytes when they
// are there. Upstream is asked once, for all of it.
func TestRangeOfRunningFill(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	whole := noise(2, 3<<20)
	desc := b.up.PutBlob("library/app", whole)
	release := make(chan struct{})
	b.up.Fault(remotestest.Blobs(), remotestest.Gate(2<<20, release))
	ctx := soon(t)
	first := make(chan answer, 1)
	go func() {
		a, _ := b.try(ctx, http.MethodGet, blobPath(desc.Digest)) // a.status tells
		first <- a
	}()
	if err := b.up.Await(ctx, func(reqs []remotestest.Request) bool { return len(reqs) == 1 && reqs[0].Bytes == 2<<20 }); err != nil {
		t.Fatal(err)
	}
	// What lies before the gate, and is not held back, comes at once.
	early := rangeCase{"bytes=1000-1999", 206, 1000, 1000}
	early.check(t, b.ask(http.MethodGet, blobPath(desc.Digest), "Range", early.header), whole)

	cases := rangeCases(desc.Size)
	answers := make([]chan answer, len(cases))
	for i, c := range cases {
		answers[i] = make(chan answer, 1)
		go func() {
			a, _ := b.try(ctx, http.MethodGet, blobPath(desc.Digest), rangeHeader(c.header)...) // a.status tells
			answers[i] <- a
		}()
	}
	close(release)
	for i, c := range cases {
		c.check(t, <-answers[i], whole)
	}
	rangeCases(desc.Size)[0].check(t, <-first, whole)
	if n := b.up.Count(http.MethodGet, "/blobs/"); n != 1 {
		t.Errorf("upstream saw %d GETs, want 1", n)
	}
}

func TestEmptyBlob(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	desc := b.up.PutBlob("library/app", nil)
	for range 2 {
		for _, header := range []string{"", "bytes=0-"} {
			a := b.ask(http.MethodGet, blobPath(desc.Digest), rangeHeader(header)...)
			if a.status != 200 || len(a.body) != 0 || a.length != 0 || a.err != nil {
				t.Errorf("%q: %d with %d bytes, length %d, %v", header, a.status, len(a.body), a.length, a.err)
			}
		}
		b.settle(desc.Digest)
	}
}

// stored is a Registry of which a fuzzed request needs only a blob.
type stored struct{ store *cache.Store }

func (s stored) IsPrivate(remotes.Repository) bool { return false }

func (s stored) Admit(ctx context.Context, _ remotes.Repository, _ string, _ remotes.Credential) (context.Context, error) {
	return ctx, nil
}

func (s stored) Resolve(context.Context, remotes.Reference) (remotes.Resolved, error) {
	return remotes.Resolved{}, context.Canceled
}

func (s stored) Ready(context.Context, remotes.Reference, bool) (remotes.Manifest, bool) {
	return remotes.Manifest{}, false
}

func (s stored) Manifest(context.Context, remotes.Reference) (remotes.Manifest, error) {
	return remotes.Manifest{}, context.Canceled
}

func (s stored) Blob(_, _ context.Context, _ remotes.Repository, dgst digest.Digest) (*remotes.Blob, error) {
	b, err := s.store.Open(dgst)
	if err != nil {
		return nil, err
	}
	return &remotes.Blob{ReadSeekCloser: b, Size: b.Size(), Outcome: remotes.Hit}, nil
}

func (s stored) Tags(context.Context, remotes.Repository, int, string) (remotes.TagList, error) {
	return remotes.TagList{}, context.Canceled
}

func (s stored) Referrers(context.Context, remotes.Repository, digest.Digest, string) (remotes.ReferrerList, error) {
	return remotes.ReferrerList{}, context.Canceled
}

// FuzzRange: whatever Range says, the answer is the whole, the part that
// Content-Range names, or 416.
func FuzzRange(f *testing.F) {
	whole := noise(3, 1000)
	store, err := cache.Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = store.Close() }) // the fuzzer's processes end anyhow
	dgst := digest.FromBytes(whole)
	if err := store.Put(f.Context(), dgst, whole, cache.Facts{}); err != nil {
		f.Fatal(err)
	}
	s := New(stored{store}, Options{
		Map:  func(ns, path string) (remotes.Repository, error) { return remotes.NewRepository(ns, path) },
		Wait: 1 << 40, Logger: slog.New(slog.DiscardHandler),
	})
	for _, c := range rangeCases(1000) {
		f.Add(c.header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, blobPath(dgst), nil)
		r.Header["Range"] = []string{header}
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, r)
		var first, last, size int
		body, _ := io.ReadAll(rec.Body) // memory
		switch rec.Code {
		case http.StatusOK:
			if !bytes.Equal(body, whole) {
				t.Fatalf("%q: 200 with %d bytes", header, len(body))
			}
		case http.StatusPartialContent:
			n, err := fmt.Sscanf(rec.Header().Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &size)
			if n != 3 || err != nil || size != len(whole) || first > last || last >= size || !bytes.Equal(body, whole[first:last+1]) {
				t.Fatalf("%q: Content-Range %q with %d bytes", header, rec.Header().Get("Content-Range"), len(body))
			}
		case http.StatusRequestedRangeNotSatisfiable:
			if header == "bytes=0-0" {
				t.Fatal("the first byte is not to be had")
			}
		default:
			t.Fatalf("%q: status %d", header, rec.Code)
		}
	})
}
