package cache

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// holdStore is a process that holds the store in args[0] until its input ends.
func holdStore(_ context.Context, args []string) error {
	s, err := Open(args[0])
	if err != nil {
		return err
	}
	fmt.Println("open") //nolint:forbidigo // to the test, through a pipe
	_, _ = io.Copy(io.Discard, os.Stdin)
	return s.Close()
}

// startHolder returns a process that holds the store.
func startHolder(t *testing.T, root string) *exec.Cmd {
	t.Helper()
	cmd := child(t, "hold", root)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("holder said %q, %v", line, err)
	}
	return cmd
}

// TestOpenLocked has another process hold the store, and then die.
func TestOpenLocked(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	holder := startHolder(t, root)
	_, err := Open(root)
	want := fmt.Sprintf("process %d", holder.Process.Pid)
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("open: %v, want unavailable that names %s", err, want)
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // killed
	s := openStore(t, root)
	if _, err := Open(root); !errdefs.IsUnavailable(err) {
		t.Errorf("second open in one process: %v, want unavailable", err)
	}
	pid, err := os.ReadFile(filepath.Join(root, "lock"))
	if err != nil || string(pid) != fmt.Sprintln(os.Getpid()) {
		t.Errorf("lock holds %q, %v, want our pid", pid, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	openStore(t, root)
}

// TestOpenFailure gives the lock free when Open fails.
func TestOpenFailure(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "blobs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := Open(root); err == nil || errdefs.IsUnavailable(err) {
			t.Fatalf("open over a file named blobs: %v, want an error that is not the lock's", err)
		}
	}
	if _, err := Open(filepath.Join(root, "blobs", "x")); err == nil {
		t.Error("open below a file: no error")
	}
}

// TestClosed has every call on a closed store fail in one way, at once.
func TestClosed(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 100)
	if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
		t.Fatal(err)
	}
	b, err := s.Open(dgst)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	w, err := s.Writer(t.Context(), withRef("w"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if got, err := io.ReadAll(b); err != nil || len(got) != 100 {
		t.Errorf("blob that is open: %d bytes, %v, want all", len(got), err)
	}
	s.Touch("tag", dgst) // nothing comes of it
	other, otherDigest := blobOf(2, 100)
	_, werr := w.Write(data)
	_, nerr := s.Writer(t.Context(), withRef("n"))
	_, terr := s.Tag("x")
	_, ierr := s.Info(t.Context(), dgst)
	_, lerr := s.Links()
	_, perr := s.PinsOf("x", "")
	for call, err := range map[string]error{
		"write":   werr,
		"commit":  w.Commit(t.Context(), 0, ""),
		"writer":  nerr,
		"put":     s.Put(t.Context(), otherDigest, other, Facts{}),
		"tag":     terr,
		"put tag": s.PutTag(Tag{Name: "x"}),
		"info":    ierr,
		"links":   lerr,
		"pin":     s.PutPin(Pin{Name: "x"}),
		"pins of": perr,
	} {
		if !errdefs.IsUnavailable(err) {
			t.Errorf("%s: %v, want unavailable", call, err)
		}
	}
	// The folder may be another process's by now.
	wantNoBlob(t, s, digest.FromBytes(nil))
	wantNoBlob(t, s, otherDigest)
}
