package cache

import (
	"bytes"
	"os"
	"testing"

	"github.com/containerd/errdefs"
)

// TestOpenVerifiedWithoutFacts: a blob of which the index knows nothing is served
// if it is right, whatever stands in its place is not, and the disk is read once.
func TestOpenVerifiedWithoutFacts(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(data []byte) []byte{
		"right":    func(data []byte) []byte { return data },
		"empty":    func([]byte) []byte { return nil },
		"short":    func(data []byte) []byte { return data[:len(data)/2] },
		"extended": func(data []byte) []byte { return append(bytes.Clone(data), 'x') },
		"zeroed":   func(data []byte) []byte { return make([]byte, len(data)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := &gatedDisk{Disk: OSDisk()}
			s := openStore(t, t.TempDir(), WithDisk(disk))
			data, dgst := putBlob(t, s, 1, 50_000)
			if err := s.index.delete(blobsBucket, dgst.String()); err != nil {
				t.Fatal(err)
			}
			path, err := s.blobPath(dgst)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			now := change(data)
			if err := os.WriteFile(path, now, 0o444); err != nil {
				t.Fatal(err)
			}
			b, err := s.OpenVerified(t.Context(), dgst)
			if name != "right" {
				if has, herr := s.Has(dgst); !errdefs.IsNotFound(err) || has || herr != nil {
					t.Fatalf("got %v, and it is there: %t, %v; want it set aside", err, has, herr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			b.Close()
			opened := disk.opened.Load()
			if b, err = s.OpenVerified(t.Context(), dgst); err != nil {
				t.Fatal(err)
			}
			b.Close()
			if n := disk.opened.Load() - opened; n != 1 {
				t.Errorf("opened %d times to serve it again, want once", n)
			}
		})
	}
}
