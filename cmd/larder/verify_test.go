package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
)

// spoil turns a bit of a stored blob.
func spoil(t *testing.T, root string, dgst digest.Digest) {
	t.Helper()
	path := filepath.Join(root, "blobs", dgst.Algorithm().String(), dgst.Encoded())
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 4
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestVerify damages a stored layer twice: it is found, named, and fetched
// again, or else lost, which is the exit code.
func TestVerify(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	img := remotestest.Build(remotestest.ImageSpec{Seed: 3})
	d.registry.PutImage("library/app", "1", img)
	d.mustLarder(t, "pull", "app:1")
	root := decodeJSON[admin.Status](t, d.mustLarder(t, "status", "--json")).Root
	layer := img.Blobs[0].Descriptor.Digest
	if out := d.mustLarder(t, "verify", "app:1"); !strings.Contains(out, "verified 3 blobs") || !strings.Contains(out, "0 damaged") {
		t.Errorf("verify of what is well:\n%s", out)
	}
	spoil(t, root, layer)
	out := d.mustLarder(t, "verify", "--all")
	for _, want := range []string{layer.String(), "needed by docker.io/library/app:1", "fetched again from http", "1 damaged"} {
		if !strings.Contains(out, want) {
			t.Errorf("verify does not say %q:\n%s", want, out)
		}
	}
	spoil(t, root, layer)
	code, text, stderr := d.larder(t, "verify", "--since", "1h", "--no-refetch", "--json")
	res := decodeJSON[remotes.VerifyResult](t, text)
	if code != exitFailure || !strings.Contains(stderr, "1 blob is lost") || len(res.Damaged) != 1 || res.Damaged[0].Lost == "" {
		t.Errorf("verify of what is lost: exit %d, %s, %+v", code, stderr, res)
	}
	status := d.mustLarder(t, "status")
	if !strings.Contains(status, "damaged blobs found: 2") || !strings.Contains(status, "not stored again: 1") {
		t.Errorf("status:\n%s", status)
	}
	d.mustLarder(t, "pull", "app:1")
	d.mustLarder(t, "verify", "--all")
	if s := decodeJSON[admin.Status](t, d.mustLarder(t, "status", "--json")); len(s.Damages) != 2 || !s.Damages[1].Back {
		t.Errorf("damages: %+v, want both back", s.Damages)
	}
	for _, args := range [][]string{{"verify"}, {"verify", "--all", "app:1"}, {"verify", "--since", "-1h"}, {"verify", "--since", "0s"}} {
		if code, _, stderr := d.larder(t, args...); code != exitUsage {
			t.Errorf("%v: exit %d, %s, want %d", args, code, stderr, exitUsage)
		}
	}
	if code, _, stderr := d.larder(t, "verify", "nope:1"); code != exitFailure || !strings.Contains(stderr, "is not in the store") {
		t.Errorf("verify of what is not stored: exit %d, %s", code, stderr)
	}
	if code, _, stderr := d.larder(t, "verify", "--all", "--offline"); code != exitFailure || !strings.Contains(stderr, "in use by process") {
		t.Errorf("verify --offline beside a daemon: exit %d, %s", code, stderr)
	}
}

// TestVerifyOffline reads a store without a daemon, and makes none.
func TestVerifyOffline(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "store")
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte("root = \""+root+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	verify := func() int {
		stdout.Reset()
		stderr.Reset()
		return run(t.Context(), []string{"verify", "--all", "--offline", "--config", file}, &stdout, &stderr)
	}
	if code := verify(); code != exitFailure {
		t.Errorf("without a store: exit %d", code)
	}
	if _, err := os.Stat(root); err == nil {
		t.Error("verify made a store")
	}
	s, err := cache.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("some bytes")
	dgst := digest.FromBytes(data)
	if err := s.Put(t.Context(), dgst, data, cache.Facts{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if code := verify(); code != 0 || !strings.Contains(stdout.String(), "verified 1 blob,") {
		t.Errorf("exit %d, %s%s", code, &stdout, &stderr)
	}
	spoil(t, root, dgst)
	if code := verify(); code != exitFailure || !strings.Contains(stdout.String(), "LOST") {
		t.Errorf("damaged: exit %d, %s%s", code, &stdout, &stderr)
	}
}

// TestPrintHealing says how far a scrub is in one line.
func TestPrintHealing(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 10, 12, 0, 0, 0, time.Local)
	began := now.Add(-2 * time.Hour)
	for want, scrub := range map[string]admin.ScrubStatus{
		"": {},
		"scrub since 10:00:00: 2 blobs, 3.0 KiB, 0 damaged\n":                    {ScrubState: cache.ScrubState{Began: began, Blobs: 2, Bytes: 3072}},
		"scrub since 10:00:00: 1 blob, 0 B, 0 damaged; waits: the load is 9.0\n": {ScrubState: cache.ScrubState{Began: began, Blobs: 1}, Waiting: "the load is 9.0"},
		"scrub ended 1 hour ago: 0 blobs, 0 B, 7 damaged\n":                      {ScrubState: cache.ScrubState{Began: began, Ended: now.Add(-time.Hour), Damaged: 7}},
	} {
		var b strings.Builder
		printHealing(&b, admin.Status{Scrub: scrub}, now)
		if b.String() != want {
			t.Errorf("got %q, want %q", b.String(), want)
		}
	}
}
