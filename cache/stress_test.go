package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// TestFillStress runs where nothing else opens files: in a process of its own.
func TestFillStress(t *testing.T) {
	t.Parallel()
	seed := strconv.FormatUint(rand.Uint64(), 10)
	t.Log("seed", seed)
	cmd := child(t, "stress", t.TempDir(), seed)
	if err := cmd.Run(); err != nil {
		t.Errorf("stress: %v", err)
	}
}

// stressFills fills 100 blobs, good, broken and wrong ones, with 50 readers
// that come and leave at random. In the end as many files and goroutines are
// there as before.
func stressFills(ctx context.Context, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	seed, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	s, err := Open(args[0], WithLogger(quiet), WithFillPolicy(FillPolicy{Attempts: 2, Pause: time.Millisecond}))
	if err != nil {
		return err
	}
	blobs := make([]stressBlob, 100)
	for n := range blobs {
		blobs[n].data, blobs[n].digest = blobOf(uint64(n), 1+n*n*200)
		blobs[n].wrong, _ = blobOf(uint64(n+1000), 1+n*n*200)
	}
	files, goroutines := openFiles(), runtime.NumGoroutine()
	var wg sync.WaitGroup
	errs := make(chan error, 50)
	for i := range 50 {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for range 20 {
				if err := stressReader(ctx, s, blobs, rng); err != nil {
					errs <- fmt.Errorf("seed %d: %w", seed, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	s.fillers.Wait()
	if n := openFiles(); n != files {
		err = errors.Join(err, fmt.Errorf("%d files open, %d before", n, files))
	}
	if len(s.fills) != 0 || len(s.refs) != 0 {
		err = errors.Join(err, fmt.Errorf("%d fills and %d refs are left", len(s.fills), len(s.refs)))
	}
	err = errors.Join(err, s.Close())
	// A context's goroutines end a moment after it.
	for n := runtime.NumGoroutine(); n > goroutines; n = runtime.NumGoroutine() {
		if ctx.Err() != nil {
			return errors.Join(err, fmt.Errorf("%d goroutines, %d before", n, goroutines))
		}
		runtime.Gosched()
	}
	return err
}

func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries)
}

type stressBlob struct {
	data, wrong []byte
	digest      digest.Digest
}

// stressReader asks for one of the blobs and reads some of it.
func stressReader(ctx context.Context, s *Store, blobs []stressBlob, rng *rand.Rand) error {
	n := rng.IntN(len(blobs))
	data, wrong, dgst := blobs[n].data, blobs[n].wrong, blobs[n].digest
	src := map[int]*script{
		0: scripted(breaks(data, len(data)/2, errHangUp), sends(data)),
		1: scripted(breaks(wrong, len(data)/2, errHangUp), sends(data), sends(data)),
		2: scripted(refuses(errdefs.ErrUnavailable)),
		3: scripted(breaks(data, len(data)/3, errHangUp)),
	}[rng.IntN(8)]
	if src == nil {
		src = scripted(sends(data))
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(rng.Int64N(int64(50*time.Millisecond))))
	defer cancel()
	if n%10 == 0 && rng.IntN(4) == 0 {
		if err := s.Delete(ctx, dgst); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	var body io.ReadSeekCloser
	f, _, err := s.Fill(ctx, dgst, -1, src)
	switch {
	case errdefs.IsAlreadyExists(err):
		body, err = s.Open(dgst)
		if errdefs.IsNotFound(err) {
			return nil // deleted
		}
		if err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if f.WaitReadable(ctx, 0) != nil {
			return nil // too late, or the upstream's fault
		}
		r, err := f.NewReader(ctx)
		if err != nil {
			return nil // over, or without bytes yet
		}
		body = r
	}
	defer body.Close()
	at := rng.IntN(len(data))
	if _, err := body.Seek(int64(at), io.SeekStart); err != nil {
		return err
	}
	got, err := io.ReadAll(io.LimitReader(body, rng.Int64N(int64(len(data)))))
	if err != nil {
		return nil // left, or the upstream's fault
	}
	// Wrong bytes may be read, but never to the end, and no others: what a right
	// upstream began, a wrong one may have gone on with, and the other way round.
	isWhole := at+len(got) == len(data)
	for i, b := range got {
		if b != data[at+i] && (isWhole || b != wrong[at+i]) {
			return fmt.Errorf("blob %d: of %d bytes at %d, those from %d on are wrong", n, len(got), at, i)
		}
	}
	return nil
}
