package cache

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// quiet is for tests that damage many blobs.
func quiet() Option { return WithLogger(slog.New(slog.DiscardHandler)) }

// putBlob publishes a blob that depends on seed.
func putBlob(t testing.TB, s *Store, seed uint64, size int) ([]byte, digest.Digest) {
	t.Helper()
	data, dgst := blobOf(seed, size)
	if err := s.Put(t.Context(), dgst, data, Facts{Source: "https://up.example"}); err != nil {
		t.Fatal(err)
	}
	return data, dgst
}

// tamper changes a blob's file behind the store's back.
func tamper(t testing.TB, s *Store, dgst digest.Digest, change func(f *os.File) error) {
	t.Helper()
	path, err := s.blobPath(dgst)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	// As a disk that went wrong: the file's time says nothing of it.
	fi, err := f.Stat()
	if err == nil {
		err = errors.Join(change(f), f.Close(), os.Chmod(path, 0o444), os.Chtimes(path, fi.ModTime(), fi.ModTime()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// flip turns one bit of a file.
func flip(at int64, bit uint) func(f *os.File) error {
	return func(f *os.File) error {
		var b [1]byte
		if _, err := f.ReadAt(b[:], at); err != nil {
			return err
		}
		b[0] ^= 1 << (bit % 8)
		_, err := f.WriteAt(b[:], at)
		return err
	}
}

// TestVerifyFlips turns one bit in each of many blobs: at the start, in the
// middle, at the end. Every one is found, and nothing else is.
func TestVerifyFlips(t *testing.T) {
	t.Parallel()
	flips := 1000
	if testing.Short() {
		flips = 60
	}
	s := openStore(t, t.TempDir(), quiet(), WithDisk(lazyDisk{OSDisk()}))
	s.index.db.NoSync = true
	rng := rand.New(rand.NewPCG(1, 2))
	found := 0
	for i := range flips {
		size := 1 + rng.IntN(40_000)
		if i%100 == 0 {
			size = verifyPiece + rng.IntN(2*verifyPiece)
		}
		_, dgst := putBlob(t, s, uint64(i), size)
		if err := s.Verify(t.Context(), dgst, nil); err != nil {
			t.Fatalf("blob %d of %d bytes before the flip: %v", i, size, err)
		}
		at := []int64{0, int64(size) / 2, int64(size) - 1}[i%3]
		tamper(t, s, dgst, flip(at, uint(rng.IntN(8))))
		if err := s.Verify(t.Context(), dgst, nil); errdefs.IsDataLoss(err) {
			found++
		} else {
			t.Errorf("flip at %d of %d: %v, want data loss", at, size, err)
		}
		wantNoBlob(t, s, dgst)
	}
	t.Logf("%d of %d flips found", found, flips)
	damages, err := s.Damages()
	if err != nil || len(damages) != flips {
		t.Errorf("%d damages recorded, %v, want %d", len(damages), err, flips)
	}
}

// TestVerifyDamages sets everything aside that is in a blob's place and is not
// the blob.
func TestVerifyDamages(t *testing.T) {
	t.Parallel()
	cases := map[string]func(t *testing.T, s *Store, dgst digest.Digest){
		"truncated": func(t *testing.T, s *Store, dgst digest.Digest) {
			tamper(t, s, dgst, func(f *os.File) error { return f.Truncate(99) })
		},
		"empty": func(t *testing.T, s *Store, dgst digest.Digest) {
			tamper(t, s, dgst, func(f *os.File) error { return f.Truncate(0) })
		},
		"extended": func(t *testing.T, s *Store, dgst digest.Digest) {
			tamper(t, s, dgst, func(f *os.File) error { return f.Truncate(5000) })
		},
		"zeroed": func(t *testing.T, s *Store, dgst digest.Digest) {
			tamper(t, s, dgst, func(f *os.File) error { _, err := f.WriteAt(make([]byte, 1000), 0); return err })
		},
		"another blob's link": func(t *testing.T, s *Store, dgst digest.Digest) {
			_, other := putBlob(t, s, 77, 1000)
			from, _ := s.blobPath(other)
			to, _ := s.blobPath(dgst)
			if err := errors.Join(os.Remove(to), os.Link(from, to)); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, plant := range planted(t) {
		cases[name] = func(t *testing.T, s *Store, dgst digest.Digest) {
			path, _ := s.blobPath(dgst)
			if err := errors.Join(os.Remove(path), plant(path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir(), quiet())
			data, dgst := putBlob(t, s, 1, 1000)
			if err := s.PutHolder(dgst, "docker.io/library/x"); err != nil {
				t.Fatal(err)
			}
			damage(t, s, dgst)
			if err := s.Verify(patience(t), dgst, nil); !errdefs.IsDataLoss(err) {
				t.Fatalf("verify: %v, want data loss", err)
			}
			wantNoBlob(t, s, dgst)
			if _, err := s.Facts(dgst); !errdefs.IsNotFound(err) {
				t.Errorf("facts: %v, want them forgotten", err)
			}
			if held, err := s.Holds(dgst, "docker.io/library/x"); err != nil || !held {
				t.Errorf("holder: %t, %v, want it kept", held, err)
			}
			damages, err := s.Damages()
			if err != nil || len(damages) != 1 {
				t.Fatalf("damages: %v, %v, want one", damages, err)
			}
			d := damages[0]
			if d.Digest != dgst || d.Source != "https://up.example" || d.Back || d.Why == "" {
				t.Errorf("damage: %+v", d)
			}
			if _, err := os.Lstat(filepath.Join(s.root, "quarantine", d.Kept)); err != nil {
				t.Errorf("kept file: %v", err)
			}
			if err := s.Verify(t.Context(), dgst, nil); !errdefs.IsNotFound(err) {
				t.Errorf("verify again: %v, want not found", err)
			}
			if err := s.Put(t.Context(), dgst, data, Facts{Source: "https://other.example"}); err != nil {
				t.Fatal(err)
			}
			wantBlob(t, s, dgst, data)
			if damages, err = s.Damages(); err != nil || !damages[0].Back || damages[0].From != "https://other.example" {
				t.Errorf("damages of a blob that is back: %+v, %v", damages, err)
			}
		})
	}
}

// TestVerifyHealsEntry has facts that are wrong, or none, about a blob that is
// right: they are put right, and the blob stays.
func TestVerifyHealsEntry(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root)
	data, wrong := putBlob(t, s, 1, 1000)
	_, bare := putBlob(t, s, 2, 500)
	gone := digest.FromString("an entry without a file")
	err := errors.Join(
		s.index.put(blobsBucket, wrong.String(), Facts{Size: 7, Source: "https://up.example"}),
		s.index.delete(blobsBucket, bare.String()),
		s.index.put(blobsBucket, gone.String(), Facts{Size: 9, Source: "https://up.example"}),
		s.Verify(t.Context(), wrong, nil), s.Verify(t.Context(), bare, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), gone, nil); !errdefs.IsNotFound(err) {
		t.Errorf("verify what has no file: %v, want not found", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root)
	for dgst, size := range map[digest.Digest]int64{wrong: 1000, bare: 500} {
		facts, err := s.Facts(dgst)
		if err != nil || facts.Size != size || facts.Verified.IsZero() {
			t.Errorf("facts of %s: %+v, %v, want size %d and a time", dgst, facts, err, size)
		}
	}
	wantBlob(t, s, wrong, data)
	wantNoBlob(t, s, gone)
	if damages, err := s.Damages(); err != nil || len(damages) != 0 {
		t.Errorf("damages: %v, %v, want none: an entry without a file heals silently", damages, err)
	}
}

// TestVerifyKeepsWhatIsNew has the blob replaced while the damaged one was
// read: the new one stays.
func TestVerifyKeepsWhatIsNew(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), quiet())
	data, dgst := putBlob(t, s, 1, 1000)
	tamper(t, s, dgst, flip(3, 3))
	reads := 0
	err := s.Verify(t.Context(), dgst, func(ctx context.Context, _ int) error {
		if reads++; reads != 2 { // one piece each time
			return nil
		}
		return errors.Join(s.Damaged(ctx, dgst, errors.New("found elsewhere")), s.Put(ctx, dgst, data, Facts{}))
	})
	if !errdefs.IsDataLoss(err) {
		t.Errorf("verify: %v, want data loss", err)
	}
	wantBlob(t, s, dgst, data)
	if damages, err := s.Damages(); err != nil || len(damages) != 1 {
		t.Errorf("%d damages, %v, want one", len(damages), err)
	}
}

// faultyRead is a Disk on which reads fail or lie, as often as left says.
type faultyRead struct {
	Disk
	mu   sync.Mutex
	left int
	err  error // nil: a bit is turned
}

func (d *faultyRead) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := d.Disk.OpenFile(path, flag, perm)
	if err != nil || !strings.Contains(path, "/blobs/sha256/") {
		return f, err
	}
	return faultyFile{f, d}, nil
}

type faultyFile struct {
	File
	disk *faultyRead
}

func (f faultyFile) ReadAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	n, err := f.File.ReadAt(p, off)
	if f.disk.left == 0 || n == 0 {
		return n, err
	}
	f.disk.left--
	if f.disk.err != nil {
		return 0, f.disk.err
	}
	p[0] ^= 1
	return n, err
}

// TestVerifyReadsTwice believes what is wrong only when it is wrong twice, and
// takes only what the disk says for damage.
func TestVerifyReadsTwice(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		times int
		err   error
		want  func(error) bool
		stays bool
	}{
		"lies once":           {1, nil, func(err error) bool { return err == nil }, true},
		"lies twice":          {2, nil, errdefs.IsDataLoss, false},
		"fails once":          {1, syscall.EIO, func(err error) bool { return err == nil }, true},
		"fails twice":         {2, syscall.EIO, errdefs.IsDataLoss, false},
		"no memory":           {9, syscall.ENOMEM, func(err error) bool { return errors.Is(err, syscall.ENOMEM) && !errdefs.IsDataLoss(err) }, true},
		"too many open files": {9, syscall.EMFILE, func(err error) bool { return errors.Is(err, syscall.EMFILE) && !errdefs.IsDataLoss(err) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := &faultyRead{Disk: OSDisk(), err: tc.err}
			s := openStore(t, t.TempDir(), quiet(), WithDisk(disk))
			_, dgst := putBlob(t, s, 1, 1000)
			disk.left = tc.times
			if err := s.Verify(t.Context(), dgst, nil); !tc.want(err) {
				t.Errorf("verify: %v", err)
			}
			if has, err := s.Has(dgst); has != tc.stays || err != nil {
				t.Errorf("blob is there: %t, %v, want %t", has, err, tc.stays)
			}
		})
	}
}

// TestVerifyEnds stops when it is told to, and says nothing of the blob then.
func TestVerifyEnds(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	_, dgst := putBlob(t, s, 1, 3*verifyPiece)
	enough := errors.New("enough")
	if err := s.Verify(t.Context(), dgst, func(context.Context, int) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("verify: %v, want the pace's error", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	if err := s.Verify(ctx, dgst, nil); !errors.Is(err, enough) {
		t.Errorf("verify: %v, want the context's error", err)
	}
	facts, err := s.Facts(dgst)
	if err != nil || !facts.Verified.IsZero() {
		t.Errorf("verified %v, %v, want never", facts.Verified, err)
	}
	wantNoDamage(t, s)
}

func wantNoDamage(t testing.TB, s *Store) {
	t.Helper()
	if damages, err := s.Damages(); err != nil || len(damages) != 0 {
		t.Errorf("damages: %v, %v, want none", damages, err)
	}
}

// TestVerifyLeavesPages has one blob in memory and one not: it is so
// afterwards, too.
func TestVerifyLeavesPages(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp(".", ".pages-") // not a tmpfs, which is all memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := openStore(t, dir)
	const size = 10 << 20
	_, warm := putBlob(t, s, 1, size)
	_, cold := putBlob(t, s, 2, size)
	open := func(dgst digest.Digest) *Blob {
		b, err := s.Open(dgst)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	}
	w, c := open(warm), open(cold)
	pagesOf(c.File, 0, size).drop()
	if _, err := io.Copy(io.Discard, w); err != nil {
		t.Fatal(err)
	}
	if !pagesOf(w.File, 0, size).cached() || pagesOf(c.File, 0, size).cached() {
		t.Skip("NOT TESTED: what Verify leaves in memory; this kernel or file system does not tell")
	}
	runtime.LockOSThread() // so that its reads can be counted
	defer runtime.UnlockOSThread()
	var before, after unix.Rusage
	err = errors.Join(unix.Getrusage(unix.RUSAGE_THREAD, &before), s.Verify(t.Context(), warm, nil),
		unix.Getrusage(unix.RUSAGE_THREAD, &after), s.Verify(t.Context(), cold, nil))
	if err != nil {
		t.Fatal(err)
	}
	if read := (after.Inblock - before.Inblock) * 512; read < size {
		t.Errorf("%d bytes were read from the disk of a blob in memory, want all %d", read, size)
	}
	if !pagesOf(w.File, 0, size).cached() {
		t.Error("the blob that was in memory is not any more")
	}
	if pagesOf(c.File, 0, size).cached() {
		t.Error("the blob that was not in memory is now")
	}
}

// TestVerifyClosed fails as all calls do.
func TestVerifyClosed(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	_, dgst := putBlob(t, s, 1, 10)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), dgst, nil); !errdefs.IsUnavailable(err) {
		t.Errorf("verify: %v, want unavailable", err)
	}
}
