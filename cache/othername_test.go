package cache

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// linkAway gives blobs a name outside the store.
func (e *evictions) linkAway(dgsts ...digest.Digest) (dir string) {
	e.t.Helper()
	dir = e.t.TempDir()
	for _, dgst := range dgsts {
		path, err := e.blobPath(dgst)
		if err != nil {
			e.t.Fatal(err)
		}
		if err := os.Link(path, filepath.Join(dir, dgst.Encoded())); err != nil {
			e.t.Fatal(err)
		}
	}
	return dir
}

// TestEvictOtherName: where the file system is short of room, what has another name
// there stays, since its removal gives none; where the store's own bound is
// reached, it goes as all else does, and the other name stays whole.
func TestEvictOtherName(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	shared := e.image("shared", 300*time.Hour, 1, 2)
	partly := e.image("partly", 200*time.Hour, 3, 4)
	e.image("own", 100*time.Hour, 5)
	dir := e.linkAway(shared.blobs()...)
	e.linkAway(partly.root)
	e.budget = Budget{MinFree: Amount{Percent: 99.9}}.withDefaults()
	before, err := e.Usage()
	if err != nil || before.Bound != boundFree {
		t.Fatalf("%+v, %v: the test needs a disk of which not all is free", before, err)
	}
	dry, err := e.Collect(t.Context(), CollectOptions{To: -1, DryRun: true})
	if err != nil || dry.Images != 2 {
		t.Errorf("a dry run: %+v, %v", dry, err)
	}
	done, err := e.Collect(t.Context(), CollectOptions{To: -1})
	if err != nil || done.Images != 2 || done.Stays[inContainerd] != 1 || !strings.Contains(done.StaysText(), "1 of which containerd") {
		t.Errorf("got %+v, %v, want all but the shared image to go", done, err)
	}
	e.wantStored(shared.blobs()...)
	after := wantUsage(t, e.Store, "after")
	path, err := e.blobPath(shared.root)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if gone := before.Stored - after.Stored; done.Bytes != gone-blocksOf(fi) {
		t.Errorf("%d bytes are said to be free, of %d that went and a manifest with another name", done.Bytes, gone)
	}

	e.want("by hand", e.collect(-1), ":shared")
	wantUsage(t, e.Store, "all is gone")
	for _, dgst := range shared.blobs() {
		data, err := os.ReadFile(filepath.Join(dir, dgst.Encoded()))
		if err != nil || digest.FromBytes(data) != dgst {
			t.Errorf("the other name of %s: %v", dgst, err)
		}
	}
}

// TestMakeRoomOtherName: nothing is evicted for what would only fit if that gave room
// which has another name.
func TestMakeRoomOtherName(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	shared := e.image("shared", 300*time.Hour, 1, 2)
	own := e.image("own", 100*time.Hour, 3)
	dir := e.linkAway(shared.blobs()...)
	e.budget = Budget{MinFree: Amount{Percent: 99.9}}.withDefaults()
	u, err := e.Usage()
	if err != nil || u.Bound != boundFree {
		t.Fatalf("%+v, %v: the test needs a disk of which not all is free", u, err)
	}
	if err := e.makeRoom(t.Context(), u.Stored-4096); err == nil || !strings.Contains(err.Error(), "1 of which containerd has") {
		t.Errorf("got %v, want that so much may not be evicted, and why", err)
	}
	e.wantStored(append(shared.blobs(), own.blobs()...)...)
	if err := os.RemoveAll(dir); err != nil { // now it has one name only
		t.Fatal(err)
	}
	if err := e.makeRoom(t.Context(), u.Stored-4096); err != nil {
		t.Error(err)
	}
}
