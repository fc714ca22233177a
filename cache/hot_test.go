package cache

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"
)

// hotPaths are what each request for what is stored, and each piece of what comes,
// calls in this package.
func hotPaths(t testing.TB) map[string]func() {
	t.Helper()
	s := openStore(t, t.TempDir(), WithClock(anHourOn))
	data, dgst := blobOf(1, 2000)
	now := time.Now()
	if err := s.Put(t.Context(), dgst, data, Facts{MediaType: "x"}); err != nil {
		t.Fatal(err)
	}
	const name = "docker.io/library/app:1"
	if err := s.PutTag(Tag{Name: name, Created: now, Moved: now, Validated: now}); err != nil {
		t.Fatal(err)
	}
	link := Link{Repository: "docker.io/library/app", Digest: dgst}
	if err := s.PutLink(link); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return map[string]func(){
		"Tag":        func() { _, err := s.Tag(name); must(err) },
		"TagDecoded": func() { s.index.memo.forget(); _, err := s.Tag(name); must(err) },
		"Link":       func() { _, err := s.Link(link.Repository, dgst); must(err) },
		"Facts":      func() { _, err := s.Facts(dgst); must(err) },
		"Has":        func() { _, err := s.Has(dgst); must(err) },
		"Touch":      func() { s.Touch(name, dgst) },
		"NoteServed": func() { s.NoteServed(dgst) },
		"ManifestInMemory": func() {
			if _, ok := s.ManifestInMemory(dgst); !ok {
				_, err := s.ReadManifest(dgst)
				must(err)
			}
		},
		"Open": func() { b, err := s.Open(dgst); must(err); must(b.Close()) },
		"OpenVerified": func() {
			b, err := s.OpenVerified(t.Context(), dgst)
			must(err)
			must(b.Close())
		},
	}
}

func BenchmarkHot(b *testing.B) {
	for name, call := range hotPaths(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
}

// BenchmarkFillAppend hashes and writes a piece of a fill, and tells its readers.
func BenchmarkFillAppend(b *testing.B) {
	s := openStore(b, b.TempDir())
	piece, dgst := blobOf(1, copyBuffer)
	f := s.newFill(Origin{}, dgst, -1)
	in, err := s.openIngest(b.Context(), "bench", 0, dgst.Algorithm())
	if err != nil {
		b.Fatal(err)
	}
	defer in.file.Close()
	b.SetBytes(copyBuffer)
	b.ReportAllocs()
	for b.Loop() {
		if in.offset > 64<<20 {
			if err := in.truncate(); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.append(b.Context(), in, piece); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFillReader reads pieces of a fill's file that are there.
func BenchmarkFillReader(b *testing.B) {
	s := openStore(b, b.TempDir())
	const size = 8 << 20
	data, dgst := blobOf(1, size)
	f := s.newFill(Origin{}, dgst, size)
	in, err := s.openIngest(b.Context(), "bench", 0, dgst.Algorithm())
	if err != nil {
		b.Fatal(err)
	}
	defer in.file.Close()
	if _, err := io.Copy(in, bytes.NewReader(data)); err != nil {
		b.Fatal(err)
	}
	f.file, f.received, f.size, f.verified = in.file, size, size, true
	r, err := f.NewReader(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, copyBuffer)
	b.SetBytes(copyBuffer)
	b.ReportAllocs()
	for b.Loop() {
		if r.off >= size {
			r.off = 0
		}
		if _, err := r.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	f.file = nil // in's
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
}

// TestAllocations keeps the hot functions from allocating more than they do now:
// see make allocs.
//
//nolint:paralleltest // it counts all of the process
func TestAllocations(t *testing.T) {
	if os.Getenv("LARDER_TEST_ALLOCS") == "" {
		t.Skip("set LARDER_TEST_ALLOCS, as make allocs does")
	}
	most := map[string]float64{
		"Tag": 0, "TagDecoded": 18, "Link": 1, "Facts": 13, "Has": 3, "Touch": 0, "NoteServed": 0,
		"ManifestInMemory": 3, "Open": 9, "OpenVerified": 22,
	}
	for name, call := range hotPaths(t) {
		if n := testing.AllocsPerRun(200, call); n > most[name] {
			t.Errorf("%s: %.0f allocations, want at most %.0f", name, n, most[name])
		}
	}
}
