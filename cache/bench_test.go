package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

const benchSize = 64 << 20

// BenchmarkFill is a fill from memory with one reader. BenchmarkCopy is what
// the disk gives for the same bytes.
func BenchmarkFill(b *testing.B) {
	data, dgst := blobOf(1, benchSize)
	s := openStore(b, b.TempDir())
	b.SetBytes(benchSize)
	for b.Loop() {
		f := startFill(b, s, dgst, benchSize, scripted(sends(data)))
		if err := f.WaitReadable(b.Context(), 0); err != nil {
			b.Fatal(err)
		}
		r, err := f.NewReader(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); n != benchSize || err != nil {
			b.Fatal(n, err)
		}
		r.Close()
		if err := f.Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := s.Delete(context.Background(), dgst); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCopy writes and syncs the same bytes, and hashes them or not.
func BenchmarkCopy(b *testing.B) {
	data, dgst := blobOf(1, benchSize)
	for _, hashed := range []bool{false, true} {
		b.Run(fmt.Sprintf("hashed=%t", hashed), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "copy")
			b.SetBytes(benchSize)
			for b.Loop() {
				f, err := os.Create(path)
				if err != nil {
					b.Fatal(err)
				}
				w := io.Writer(f)
				if hashed {
					w = io.MultiWriter(f, dgst.Verifier())
				}
				if _, err := io.CopyBuffer(w, struct{ io.Reader }{bytes.NewReader(data)}, make([]byte, copyBuffer)); err != nil {
					b.Fatal(err)
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
				f.Close()
				if err := os.Remove(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen opens a store with 10,000 tags, facts and blobs.
func BenchmarkOpen(b *testing.B) {
	root := b.TempDir()
	s := openStore(b, root)
	s.index.db.NoSync = true
	fillIndex(b, s, 10_000)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Open(root)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func fillIndex(b *testing.B, s *Store, n int) {
	b.Helper()
	errs := make(chan error)
	for i := range n {
		go func() {
			_, dgst := blobOf(uint64(i), 1)
			t := Tag{Name: fmt.Sprintf("docker.io/library/nginx:%d", i)}
			t.Target.Digest = dgst
			err := s.PutTag(t)
			if err == nil {
				err = s.SetFacts(dgst, Facts{Size: 1 << 20, MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Source: "registry-1.docker.io"})
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTag is the hot path: the look-up of a tag, of its blob, and the note
// of their use.
func BenchmarkTag(b *testing.B) {
	s := openStore(b, b.TempDir())
	s.index.db.NoSync = true
	fillIndex(b, s, 1000)
	b.ReportAllocs()
	for b.Loop() {
		t, err := s.Tag("docker.io/library/nginx:500")
		if err != nil {
			b.Fatal(err)
		}
		s.Touch(t.Name, t.Target.Digest)
	}
}

// BenchmarkPutTag is durable each time.
func BenchmarkPutTag(b *testing.B) {
	s := openStore(b, b.TempDir())
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			if err := s.PutTag(Tag{Name: "docker.io/library/nginx:1"}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("together", func(b *testing.B) {
		b.SetParallelism(50)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := s.PutTag(Tag{Name: "docker.io/library/nginx:1"}); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}
