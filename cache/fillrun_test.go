package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

var errHangUp = errors.New("connection reset")

// upstreamCase is an upstream's behaviour, and what comes of it.
type upstreamCase struct {
	blob    []byte
	prefix  []byte // that an earlier fill left; nil: none
	hint    int64
	steps   []step
	want    func(error) bool // nil: the blob is stored
	offsets []int64
	pauses  int  // at least so many times a second's half
	kept    bool // on failure: the ingest stays, since it has bytes
}

func isUnexpectedEOF(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }
func isHangUp(err error) bool        { return errors.Is(err, errHangUp) }

// TestFillUpstream goes through what upstreams do. Pauses are in the clock of
// a bubble.
func TestFillUpstream(t *testing.T) {
	t.Parallel()
	const size = 2*HoldBack + 5
	data, _ := blobOf(1, size)
	small, _ := blobOf(2, 100)
	other, _ := blobOf(3, size)
	more := append(bytes.Clone(data), "more"...)
	down := fmt.Errorf("dial: %w", errdefs.ErrUnavailable)
	beyond := fmt.Errorf("416: %w", errdefs.ErrOutOfRange)
	half := size / 2
	for name, tc := range map[string]upstreamCase{
		"whole":              {blob: data, hint: size, steps: []step{sends(data)}, offsets: []int64{0}},
		"no hint":            {blob: data, hint: -1, steps: []step{sends(data)}, offsets: []int64{0}},
		"size unknown":       {blob: data, hint: size, steps: []step{sendsSized(data, -1)}, offsets: []int64{0}},
		"absurd size":        {blob: data, hint: -1, steps: []step{sendsSized(data, -7)}, offsets: []int64{0}},
		"small":              {blob: small, hint: 100, steps: []step{sends(small)}, offsets: []int64{0}},
		"empty":              {blob: nil, hint: 0, steps: []step{sends(nil)}, offsets: []int64{0}},
		"empty, unknown":     {blob: nil, hint: -1, steps: []step{sendsSized(nil, -1)}, offsets: []int64{0}},
		"as hold back":       {blob: data[:HoldBack], hint: -1, steps: []step{sends(data[:HoldBack])}, offsets: []int64{0}},
		"hostile hint small": {blob: data, hint: 7, steps: []step{sends(data)}, offsets: []int64{0}},
		"hostile hint large": {blob: data, hint: 1 << 50, steps: []step{sends(data)}, offsets: []int64{0}},
		"hostile hint, size unknown": {
			blob: data, hint: 7, steps: []step{sendsSized(data, -1)}, offsets: []int64{0},
		},
		"no upstream name": {
			blob:    data,
			steps:   []step{nameless(sends(other)), nameless(sends(data))},
			want:    errdefs.IsDataLoss,
			offsets: []int64{0},
		},
		"no upstream name, breaks": {
			blob: data, steps: []step{nameless(breaks(data, half, errHangUp)), nameless(sends(data))}, offsets: []int64{0, int64(half)}, pauses: 1,
		},
		"does not answer": {blob: data, steps: []step{refuses(down)}, want: errdefs.IsUnavailable, offsets: []int64{0}},
		"not found":       {blob: data, steps: []step{refuses(errdefs.ErrNotFound)}, want: errdefs.IsNotFound, offsets: []int64{0}},
		"breaks once": {
			blob: data, steps: []step{breaks(data, half, errHangUp), sends(data)}, offsets: []int64{0, int64(half)}, pauses: 1,
		},
		"breaks, is down, is back": {
			blob: data, steps: []step{breaks(data, half, errHangUp), refuses(down), refuses(down), sends(data)},
			offsets: []int64{0, int64(half), int64(half), int64(half)}, pauses: 1 + 1 + 2,
		},
		"breaks before the first byte": {
			blob: data, steps: []step{breaks(data, 0, errHangUp), sends(data)}, offsets: []int64{0, 0}, pauses: 1,
		},
		"never brings a byte": {
			blob: data, steps: []step{breaks(data, 0, errHangUp)}, want: isHangUp,
			offsets: []int64{0, 0, 0}, pauses: 1 + 2,
		},
		"breaks and stays down": {
			blob: data, steps: []step{breaks(data, half, errHangUp), refuses(down)}, want: errdefs.IsUnavailable,
			offsets: []int64{0, int64(half), int64(half), int64(half)}, pauses: 1 + 1 + 2, kept: true,
		},
		"breaks and is gone": {
			blob: data, steps: []step{breaks(data, half, errHangUp), refuses(errdefs.ErrNotFound)}, want: errdefs.IsNotFound,
			offsets: []int64{0, int64(half)}, pauses: 1, kept: true,
		},
		"breaks often": {
			blob:    data,
			steps:   []step{breaks(data, 10, errHangUp), breaks(data, 20, errHangUp), breaks(data, 30, errHangUp), breaks(data, 40, errHangUp), sends(data)},
			offsets: []int64{0, 10, 20, 30, 40}, pauses: 4,
		},
		"short body once": {
			blob: data, steps: []step{breaks(data, half, io.EOF), sends(data)}, offsets: []int64{0, int64(half)}, pauses: 1,
		},
		"short body always": {
			blob: data, steps: []step{breaks(data, half, io.EOF)}, want: isUnexpectedEOF,
			offsets: []int64{0, int64(half), int64(half), int64(half)}, pauses: 1 + 1 + 2, kept: true,
		},
		"short body, size unknown": {
			blob: data, steps: []step{breaksSized(data, half, io.EOF, -1), sends(data)}, want: errdefs.IsDataLoss, offsets: []int64{0},
		},
		"short body, empty, announced": {
			blob: data, steps: []step{breaks(data, 0, io.EOF)}, want: isUnexpectedEOF,
			offsets: []int64{0, 0, 0}, pauses: 1 + 2,
		},
		"more than announced": {
			blob: data, steps: []step{sendsSized(more, size)}, want: errdefs.IsDataLoss,
			offsets: []int64{}, kept: true, // how far it comes depends on the buffer
		},
		"more than may be": {
			blob: data, steps: []step{sendsSized(data, MaxBlobSize+1)}, want: errdefs.IsInvalidArgument, offsets: []int64{0},
		},
		"contradicts itself": {
			blob: data, steps: []step{breaks(data, half, errHangUp), sendsSized(data, size+1)}, want: errdefs.IsDataLoss,
			offsets: []int64{0, int64(half), int64(half), int64(half)}, pauses: 1 + 1 + 2, kept: true,
		},
		"contradicts itself once": {
			blob: data, steps: []step{breaks(data, half, errHangUp), sendsSized(data, size+1), sends(data)},
			offsets: []int64{0, int64(half), int64(half)}, pauses: 1 + 1,
		},
		"wrong bytes":               {blob: data, steps: []step{sends(other)}, want: errdefs.IsDataLoss, offsets: []int64{0}},
		"wrong bytes, size unknown": {blob: data, steps: []step{sendsSized(other, -1)}, want: errdefs.IsDataLoss, offsets: []int64{0}},
		"wrong first piece": {
			blob: data, steps: []step{breaks(other, half, errHangUp), sends(data), sends(data)}, offsets: []int64{0, int64(half), 0}, pauses: 1,
		},
		"wrong last piece": {
			blob: data, steps: []step{breaks(data, half, errHangUp), sends(other), sends(data)}, offsets: []int64{0, int64(half), 0}, pauses: 1,
		},
		"wrong pieces for ever": {
			blob:    data,
			steps:   []step{breaks(other, half, errHangUp), sends(other), breaks(other, half, errHangUp), sends(other)},
			want:    errdefs.IsDataLoss,
			offsets: []int64{0, int64(half), 0, int64(half)}, pauses: 2,
		},
		"unknown size, cut at the very end": {
			blob: data, steps: []step{breaksSized(data, size, errHangUp, -1), refuses(beyond)}, offsets: []int64{0, size}, pauses: 1,
		},

		"resumes":               {blob: data, prefix: data[:half], hint: size, steps: []step{sends(data)}, offsets: []int64{int64(half)}},
		"resumes, size unknown": {blob: data, prefix: data[:half], hint: -1, steps: []step{sendsSized(data, -1)}, offsets: []int64{int64(half)}},
		"resumes, is down": {
			blob: data, prefix: data[:half], steps: []step{refuses(down)}, want: errdefs.IsUnavailable, offsets: []int64{int64(half)}, kept: true,
		},
		"whole is there":              {blob: data, prefix: data, hint: size, steps: []step{refuses(down)}, offsets: nil},
		"whole is there, no hint":     {blob: data, prefix: data, hint: -1, steps: []step{refuses(down)}, offsets: nil},
		"whole is there, wrong hint":  {blob: data, prefix: data, hint: 7, steps: []step{refuses(down)}, offsets: nil},
		"bad prefix":                  {blob: data, prefix: other[:half], hint: size, steps: []step{sends(data)}, offsets: []int64{int64(half), 0}},
		"bad prefix of whole size":    {blob: data, prefix: other, hint: size, steps: []step{sends(data)}, offsets: []int64{size, 0}},
		"bad prefix, is down after":   {blob: data, prefix: other[:half], steps: []step{sends(data), refuses(down)}, want: errdefs.IsUnavailable, offsets: []int64{int64(half), 0}},
		"bad prefix and wrong bytes":  {blob: data, prefix: other[:half], steps: []step{sends(other)}, want: errdefs.IsDataLoss, offsets: []int64{int64(half), 0}},
		"prefix longer than blob":     {blob: small, prefix: data, hint: 100, steps: []step{sends(small)}, offsets: []int64{size, 0}},
		"out of range, then is whole": {blob: data, prefix: other[:half], steps: []step{refuses(beyond), sends(data)}, offsets: []int64{int64(half), 0}},
		"out of range for ever":       {blob: data, prefix: other[:half], steps: []step{refuses(beyond)}, want: errdefs.IsOutOfRange, offsets: []int64{int64(half), 0}},
		"empty blob, garbage is there": {
			blob: nil, prefix: other[:half], steps: []step{sends(nil)}, offsets: []int64{int64(half), 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			synctest.Test(t, func(t *testing.T) { runUpstreamCase(t, root, tc) })
		})
	}
}

func nameless(s step) step {
	return func(ctx context.Context, offset int64) (Stream, error) {
		stream, err := s(ctx, offset)
		stream.Upstream = ""
		return stream, err
	}
}

func runUpstreamCase(t *testing.T, root string, tc upstreamCase) {
	policy := FillPolicy{Stall: time.Minute, MinSpeed: 1, Attempts: 3, Pause: time.Second}
	s := openStore(t, root, WithFillPolicy(policy))
	dgst := digest.FromBytes(tc.blob)
	if tc.prefix != nil {
		leaveIngest(t, s, dgst, tc.prefix)
	}
	src := scripted(tc.steps...)
	begin := time.Now()
	f := startFill(t, s, dgst, tc.hint, src)
	err := f.Wait(t.Context())
	took := time.Since(begin)
	if tc.want == nil && err != nil || tc.want != nil && (err == nil || !tc.want(err)) {
		t.Errorf("fill: %v", err)
	}
	if tc.offsets == nil || len(tc.offsets) > 0 {
		src.wantOffsets(t, tc.offsets...)
	}
	if least := time.Duration(tc.pauses) * time.Second / 2; took < least || len(tc.offsets) > 0 && took > 2*least+time.Second/2 {
		t.Errorf("fill took %s, want from %s to %s", took, least, 2*least)
	}
	st, serr := s.ListStatuses(t.Context())
	if serr != nil || len(st) > 0 != tc.kept {
		t.Errorf("ingests: %v, %v, want one: %t", st, serr, tc.kept)
	}
	if tc.want != nil {
		wantNoBlob(t, s, dgst)
		// Whatever is left of it does not stop the next.
		if err := startFill(t, s, dgst, -1, scripted(sends(tc.blob))).Wait(t.Context()); err != nil {
			t.Errorf("next fill: %v", err)
		}
	}
	wantBlob(t, s, dgst, tc.blob)
	wantNoIngests(t, s)
	facts, err := s.Facts(dgst)
	if err != nil || facts.Size != int64(len(tc.blob)) {
		t.Errorf("facts: %+v, %v, want size %d", facts, err, len(tc.blob))
	}
}

// leaveIngest leaves what a crash in mid-fill leaves.
func leaveIngest(t *testing.T, s *Store, dgst digest.Digest, prefix []byte) {
	t.Helper()
	in, err := s.openIngest(t.Context(), fillRef+dgst.String(), 0, dgst.Algorithm())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(prefix); err != nil {
		t.Fatal(err)
	}
	if err := in.close(); err != nil {
		t.Fatal(err)
	}
}

// TestFillResumes breaks a fill off, closes the store, and goes on in a new
// one where the first stopped.
func TestFillResumes(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	data, dgst := blobOf(1, 3*HoldBack)
	s := openStore(t, root, WithFillPolicy(FillPolicy{Attempts: 1}))
	const got = HoldBack + 12345
	if err := startFill(t, s, dgst, -1, scripted(breaks(data, got, errHangUp))).Wait(patience(t)); !errors.Is(err, errHangUp) {
		t.Errorf("fill: %v, want the upstream's error", err)
	}
	st, err := s.Status(t.Context(), fillRef+dgst.String())
	if err != nil || st.Offset != got {
		t.Errorf("status: %+v, %v, want offset %d", st, err, got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root)
	src := scripted(sends(data))
	f := startFill(t, s, dgst, -1, src)
	if read, err := readFill(patience(t), f); err != nil || !bytes.Equal(read, data) {
		t.Errorf("read %d bytes, %v, want all", len(read), err)
	}
	if err := f.Wait(patience(t)); err != nil {
		t.Error(err)
	}
	src.wantOffsets(t, got)
	wantBlob(t, s, dgst, data)
}

// TestFillBadPrefix has readers on an ingest whose prefix is garbage: one that
// had some of it gets an error and no end, one that waited gets the right
// bytes.
func TestFillBadPrefix(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, root)
		data, dgst := blobOf(1, 3*HoldBack)
		garbage, _ := blobOf(2, 2*HoldBack)
		leaveIngest(t, s, dgst, garbage)
		rest, whole := newTap(int64(len(data))), newTap(int64(len(data)))
		src := scripted(rest.Open, whole.Open)
		f := startFill(t, s, dgst, -1, src)
		synctest.Wait()
		fooled, err := f.NewReader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer fooled.Close()
		got := make([]byte, HoldBack)
		if _, err := io.ReadFull(fooled, got); err != nil || !bytes.Equal(got, garbage[:HoldBack]) {
			t.Errorf("prefix: %v, want what is on disk", err)
		}
		waiter, err := f.NewReader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer waiter.Close()
		go func() {
			rest.flow(t, data[2*HoldBack:])
			rest.w.Close()
		}()
		synctest.Wait() // the whole is fetched anew, and has no byte yet
		fail := make(chan error, 1)
		go func() {
			n, err := io.Copy(io.Discard, fooled)
			if n > 0 || err == nil {
				err = fmt.Errorf("read %d bytes: %w", n, err)
			}
			fail <- err
		}()
		if err := <-fail; !errdefs.IsDataLoss(err) {
			t.Errorf("reader that had garbage: %v, want data loss", err)
		}
		go func() {
			whole.flow(t, data)
			whole.w.Close()
		}()
		if all, err := io.ReadAll(waiter); err != nil || !bytes.Equal(all, data) {
			t.Errorf("reader that waited: %d bytes, %v, want all", len(all), err)
		}
		if n, err := fooled.Read(got); n != 0 || !errdefs.IsDataLoss(err) {
			t.Errorf("reader that had garbage, at the end: %d, %v, want data loss", n, err)
		}
		src.wantOffsets(t, 2*HoldBack, 0)
		if err := f.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		wantBlob(t, s, dgst, data)
	})
}

// TestFillDirectoryInPlace has a folder in the blob's place: readers get the
// verified bytes all the same, and upstream is not asked again.
func TestFillDirectoryInPlace(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 3*HoldBack)
	path := filepath.Join(s.Root(), "blobs", "sha256", dgst.Encoded())
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	src := newTap(int64(len(data)))
	f := startFill(t, s, dgst, -1, src)
	src.flow(t, data[:1])
	waitReceived(t, f, 1)
	r, err := f.NewReader(patience(t))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	src.flow(t, data[1:])
	src.w.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v, want all", len(got), err)
	}
	err = f.Wait(patience(t))
	if !errdefs.IsFailedPrecondition(err) || !bytes.Contains([]byte(err.Error()), []byte(path)) {
		t.Errorf("fill: %v, want failed precondition that names %s", err, path)
	}
	wantNoBlob(t, s, dgst)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := startFill(t, s, dgst, -1, scripted(refuses(errdefs.ErrUnavailable))).Wait(patience(t)); err != nil {
		t.Errorf("fill after the folder is gone: %v", err)
	}
	wantBlob(t, s, dgst, data)
}
