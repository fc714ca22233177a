package cache

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestHolders: they are kept over a restart, written once, and forgotten with
// their blob.
func TestHolders(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	data, dgst := blobOf(1, 1000)
	_, other := blobOf(2, 1000)
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
		t.Fatal(err)
	}
	for _, repo := range []string{"b.example/x", "a.example/x", "a.example/x"} {
		if err := s.PutHolder(dgst, repo); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutFound(Link{Digest: other, Repository: "a.example/x"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = openStore(t, root)
	if got := holderNames(t, s, dgst); !slices.Equal(got, []string{"a.example/x", "b.example/x"}) {
		t.Errorf("holders are %v", got)
	}
	for repo, want := range map[string]bool{"a.example/x": true, "a.example/x/y": false, "a.example": false, "": false} {
		if got, err := s.Holds(dgst, repo); got != want || err != nil {
			t.Errorf("%q holds it: %t, %v, want %t", repo, got, err, want)
		}
	}
	if err := s.Delete(t.Context(), dgst); err != nil {
		t.Fatal(err)
	}
	if got := holderNames(t, s, dgst); len(got) != 0 {
		t.Errorf("holders of a deleted blob are %v", got)
	}
	if got := holderNames(t, s, other); len(got) != 1 {
		t.Errorf("holders of another blob are %v, want 1", got)
	}
	if _, err := s.Link("a.example/x", other); err != nil {
		t.Errorf("its link: %v", err)
	}
}

func holderNames(t *testing.T, s *Store, dgst digest.Digest) []string {
	t.Helper()
	names, err := s.Holders(dgst)
	if err != nil {
		t.Error(err)
	}
	return names
}

// TestFillNotesHolder: the origin of a fill is a holder once the bytes are
// verified, and never before.
func TestFillNotesHolder(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), WithFillPolicy(FillPolicy{Attempts: 1}))
	data, dgst := blobOf(1, 3000)
	for _, c := range []struct {
		sent []byte
		want int
	}{{bytes.Repeat([]byte("x"), 3000), 0}, {data, 1}} {
		fill, _, err := s.FillFor(t.Context(), Origin{Repository: "a.example/x"}, dgst, -1, body(c.sent))
		if err != nil {
			t.Fatal(err)
		}
		if err := fill.Wait(patience(t)); (err == nil) != (c.want == 1) {
			t.Errorf("fill: %v", err)
		}
		if got := holderNames(t, s, dgst); len(got) != c.want {
			t.Errorf("holders are %v, want %d", got, c.want)
		}
	}
}

// TestPrivatePrefixStays: what a fill for a private repository left is resumed
// for that repository only. Anybody's registry can answer for any digest, and
// would have the bytes handed out that others sent.
func TestPrivatePrefixStays(t *testing.T) {
	t.Parallel()
	secret := Origin{Repository: "a.example/secret", Private: true}
	public := Origin{Repository: "b.example/public"}
	data, dgst := blobOf(1, 3*HoldBack)
	for name, c := range map[string]struct {
		left, next Origin
		unreadable bool
		want       int64 // offset at which the next fill begins
	}{
		"the same":            {secret, secret, false, 2 * HoldBack},
		"public after it":     {secret, public, false, 0},
		"other private":       {secret, Origin{Repository: "c.example/x", Private: true}, false, 0},
		"unknown after it":    {secret, Origin{}, false, 0},
		"private from public": {public, secret, false, 2 * HoldBack},
		"public from public":  {public, Origin{Repository: "c.example/x"}, false, 2 * HoldBack},
		"note not readable":   {secret, secret, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			leavePrefixFor(t, root, c.left, data, 2*HoldBack)
			if c.unreadable {
				swapNote(t, root)
			}
			s := openStore(t, root)
			asked := make(chan int64, 1)
			fill, _, err := s.FillFor(t.Context(), c.next, dgst, -1, scripted(func(_ context.Context, offset int64) (Stream, error) {
				asked <- offset
				return Stream{Body: io.NopCloser(bytes.NewReader(data[offset:])), Size: int64(len(data))}, nil
			}))
			if err != nil {
				t.Fatal(err)
			}
			if err := fill.Wait(patience(t)); err != nil {
				t.Error(err)
			}
			if got := <-asked; got != c.want {
				t.Errorf("the next fill began at %d, want %d", got, c.want)
			}
			wantBlob(t, s, dgst, data)
		})
	}
}

// leavePrefixFor is leavePrefix with an origin.
func leavePrefixFor(t *testing.T, root string, origin Origin, data []byte, n int) {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	src := newTap(int64(len(data)))
	f, _, err := s.FillFor(t.Context(), origin, digest.FromBytes(data), -1, src)
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Origin(); got != origin {
		t.Errorf("origin is %v, want %v", got, origin)
	}
	src.flow(t, data[:n])
	waitReceived(t, f, int64(n))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// swapNote puts a folder in the place of the only owner note.
func swapNote(t *testing.T, root string) {
	t.Helper()
	notes, err := filepath.Glob(filepath.Join(root, "ingest", "*", ownerNote))
	if err != nil || len(notes) != 1 {
		t.Fatalf("owner notes are %v, %v, want one", notes, err)
	}
	if err := os.Remove(notes[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(notes[0], 0o700); err != nil {
		t.Fatal(err)
	}
}

// body is a source that sends data, and nothing else.
func body(data []byte) Source {
	return scripted(func(context.Context, int64) (Stream, error) {
		return Stream{Body: io.NopCloser(bytes.NewReader(data)), Size: int64(len(data))}, nil
	})
}

func TestLinksOf(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	_, one := blobOf(1, 10)
	_, two := blobOf(2, 10)
	for _, l := range []Link{
		{Repository: "a.example/x", Digest: one}, {Repository: "a.example/x", Digest: two},
		{Repository: "a.example/xy", Digest: one}, {Repository: "a.example/w", Digest: two},
	} {
		if err := s.PutLink(l); err != nil {
			t.Fatal(err)
		}
	}
	for repo, want := range map[string]int{"a.example/x": 2, "a.example/w": 1, "a.example": 0, "a.example/": 0, "a.example/y": 0, "z": 0} {
		if got, err := s.LinksOf(repo); len(got) != want || err != nil {
			t.Errorf("%s: got %v, %v, want %d links", repo, got, err, want)
		}
		if has, err := s.HasLinks(repo); has != (want > 0) || err != nil {
			t.Errorf("%s has links: %t, %v, want %d", repo, has, err, want)
		}
	}
}
