package cache

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// crashBlob is a blob that both processes of the crash test can make.
func crashBlob(round, n int) ([]byte, digest.Digest) {
	seed := uint64(round*1000 + n)
	rng := rand.New(rand.NewPCG(seed, 1))
	size := 1 + rng.IntN(64<<10)
	if n%2 == 0 {
		size = HoldBack + rng.IntN(8*HoldBack)
	}
	return blobOf(seed, size)
}

// crashTag is a tag whose target says what it must be.
func crashTag(round, n int) Tag {
	_, dgst := crashBlob(round, n)
	t := Tag{Name: fmt.Sprintf("docker.io/library/crash:%d-%d", round, n)}
	t.Target.Digest = dgst
	return t
}

// fillUntilKilled fills and puts blobs in the store args[0] as fast as it can,
// says what is done, and never ends.
func fillUntilKilled(ctx context.Context, args []string) error {
	s, err := Open(args[0])
	if err != nil {
		return err
	}
	round, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	fmt.Println("open") //nolint:forbidigo // to the test, through a pipe
	for n := 0; ; n++ {
		data, dgst := crashBlob(round, n)
		if n%2 == 0 {
			f, _, err := s.Fill(ctx, dgst, -1, scripted(sends(data)))
			if err != nil {
				return err
			}
			if err := f.Wait(ctx); err != nil {
				return err
			}
		} else if err := s.Put(ctx, dgst, data, Facts{}); err != nil {
			return err
		}
		if err := s.PutTag(crashTag(round, n)); err != nil {
			return err
		}
		fmt.Println(n) //nolint:forbidigo // as above
	}
}

// TestPublishSurvivesKill kills a process that writes, at 30 random moments.
// Each time the next process finds whole blobs only, all that were reported
// done among them, and completes what was under way.
func TestPublishSurvivesKill(t *testing.T) {
	t.Parallel()
	rounds := 30
	if testing.Short() {
		rounds = 3
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	root := t.TempDir()
	resumed, blobs := 0, 0
	for round := range rounds {
		done := killRound(t, root, round, rng.IntN(4), time.Duration(rng.Int64N(int64(30*time.Millisecond))))
		r, b := checkAfterKill(t, root, round, done)
		resumed += r
		blobs = b
	}
	t.Logf("%d blobs whole, %d ingests resumed", blobs, resumed)
	if blobs < rounds {
		t.Errorf("%d blobs after %d rounds: the test shows nothing", blobs, rounds)
	}
}

// killRound runs the child until it reported so many blobs done and for a while
// longer. It returns how many it did report.
func killRound(t *testing.T, root string, round, least int, longer time.Duration) (done int) {
	t.Helper()
	cmd := child(t, "crash", root, strconv.Itoa(round))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var line string
	if _, err := fmt.Fscanln(out, &line); err != nil || line != "open" {
		t.Fatalf("child said %q, %v", line, err)
	}
	for {
		if done == least {
			kill := time.AfterFunc(longer, func() { _ = cmd.Process.Kill() })
			defer kill.Stop()
		}
		n := 0
		if _, err := fmt.Fscanln(out, &n); err != nil {
			break
		}
		done = n + 1
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("child ended by itself: %v", err)
	}
	return done
}

func checkAfterKill(t *testing.T, root string, round, done int) (resumed, blobs int) {
	t.Helper()
	ctx := patience(t)
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	err = s.Walk(ctx, func(info content.Info) error {
		blobs++
		return hashBlob(s, info.Digest)
	})
	if err != nil {
		t.Error(err)
	}
	for n := range done {
		want := crashTag(round, n)
		wantBlobHas(t, s, want.Target.Digest)
		if got, err := s.Tag(want.Name); err != nil || got.Target.Digest != want.Target.Digest {
			t.Errorf("tag that was stored: %+v, %v", got, err)
		}
	}
	if kept, _ := filepath.Glob(filepath.Join(root, "index.db.*")); len(kept) != 0 {
		t.Errorf("index was damaged: %v", kept)
	}
	// Whatever was under way is blob number done.
	data, dgst := crashBlob(round, done)
	st, err := s.Status(ctx, fillRef+dgst.String())
	if err != nil && !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	if done%2 != 0 {
		return resumed, blobs
	}
	src := scripted(sends(data))
	f, _, err := s.Fill(ctx, dgst, -1, src)
	if errdefs.IsAlreadyExists(err) {
		return resumed, blobs
	}
	if err == nil {
		err = f.Wait(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case st.Offset == int64(len(data)):
		src.wantOffsets(t)
	case st.Offset > 0:
		resumed++
		src.wantOffsets(t, st.Offset)
	}
	wantBlob(t, s, dgst, data)
	wantNoIngests(t, s)
	return resumed, blobs
}

func wantBlobHas(t *testing.T, s *Store, dgst digest.Digest) {
	t.Helper()
	if has, err := s.Has(dgst); !has || err != nil {
		t.Errorf("blob %s that was reported done: %t, %v", dgst, has, err)
	}
}

func hashBlob(s *Store, dgst digest.Digest) error {
	b, err := s.Open(dgst)
	if err != nil {
		return err
	}
	defer b.Close()
	verifier := dgst.Verifier()
	if _, err := io.Copy(verifier, b); err != nil {
		return err
	}
	fi, err := os.Stat(b.Name())
	if err != nil {
		return err
	}
	if !verifier.Verified() || fi.Mode().Perm() != 0o444 {
		return fmt.Errorf("blob %s of %d bytes, mode %v, is not whole", dgst, b.Size(), fi.Mode())
	}
	return nil
}
