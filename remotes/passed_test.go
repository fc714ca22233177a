package remotes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cache/disktest"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// pullAsClient brings an image as containerd does: the tag's digest, the
// manifest by digest, then all blobs.
func (b *bench) pullAsClient(ctx context.Context, ref Reference, img remotestest.Image) error {
	res, err := b.Resolve(ctx, ref)
	if err != nil {
		return fmt.Errorf("resolve: %w", err)
	}
	if res.Descriptor.Digest != img.Root.Digest || res.Descriptor.Size != img.Root.Size || res.Descriptor.MediaType != img.Root.MediaType {
		return fmt.Errorf("resolved to %+v, want %+v", res.Descriptor, img.Root)
	}
	for _, object := range []string{ref.Tag, img.Root.Digest.String()} {
		by, err := ref.Repository.WithObject(object)
		if err != nil {
			return err
		}
		m, err := b.Manifest(ctx, by)
		if err != nil {
			return fmt.Errorf("manifest %s: %w", object, err)
		}
		if digest.FromBytes(m.Data) != img.Root.Digest {
			return fmt.Errorf("manifest %s has %d other bytes", object, len(m.Data))
		}
	}
	for _, want := range img.Blobs {
		if err := b.readAsClient(ctx, ref.Repository, want); err != nil {
			return fmt.Errorf("blob: %w", err)
		}
	}
	return nil
}

// readAsClient asks once more if it is cut off.
func (b *bench) readAsClient(ctx context.Context, repo Repository, want remotestest.Blob) error {
	for cut := false; ; cut = true {
		blob, err := b.Blob(ctx, ctx, repo, want.Descriptor.Digest)
		if err != nil {
			return err
		}
		var got bytes.Buffer
		_, err = got.ReadFrom(blob)
		blob.Close()
		switch {
		case err == nil && bytes.Equal(got.Bytes(), want.Data):
			return nil
		case err == nil || !bytes.HasPrefix(want.Data, got.Bytes()):
			return fmt.Errorf("%s: %d wrong bytes, then %w", want.Descriptor.Digest, got.Len(), err)
		case cut:
			return err
		}
	}
}

// TestFaultyDiskCostsNoPull has the n-th call of the disk fail, for every n of a
// pull, once and from there on.
func TestFaultyDiskCostsNoPull(t *testing.T) {
	t.Parallel()
	img, stored := build(1), build(2)
	for name, plan := range map[string]func(*disktest.Faulty, int){
		"EIO once":       func(d *disktest.Faulty, n int) { d.Fail(n, syscall.EIO) },
		"EIO ever":       func(d *disktest.Faulty, n int) { d.FailFrom(n, syscall.EIO) },
		"read-only ever": func(d *disktest.Faulty, n int) { d.FailFrom(n, syscall.EROFS, disktest.Changes()...) },
		"full ever":      func(d *disktest.Faulty, n int) { d.FailFrom(n, syscall.ENOSPC, disktest.Mkdir, disktest.Write) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := 1
			for failed := true; failed && !t.Failed(); n++ {
				disk := disktest.NewFaulty(cache.OSDisk())
				b, up := one(t, img, func(s *setup) { s.disk = disk })
				up.PutImage("library/app", "stored", stored)
				if err := b.pullAsClient(soon(t), app(t, "stored"), stored); err != nil {
					t.Fatal(err)
				}
				for _, blob := range stored.Blobs {
					b.settle(blob.Descriptor.Digest)
				}
				plan(disk, n)
				for range 2 {
					if err := b.pullAsClient(soon(t), app(t, "stored"), stored); err != nil {
						t.Errorf("call %d fails: stored image: %v", n, err)
					}
					if err := b.pullAsClient(soon(t), app(t, "1"), img); err != nil {
						t.Errorf("call %d fails: new image: %v", n, err)
					}
				}
				failed = disk.Failed()
				disk.Heal()
			}
			t.Logf("%d calls", n-2)
		})
	}
}

// TestIndexLostCostsNoPull has the index become unreadable below a registry that
// runs.
func TestIndexLostCostsNoPull(t *testing.T) {
	t.Parallel()
	img, stored := build(1), build(2)
	b, up := one(t, img)
	up.PutImage("library/app", "stored", stored)
	if err := b.pullAsClient(soon(t), app(t, "stored"), stored); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(b.root, "index.db"), 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := errors.Join(b.pullAsClient(soon(t), app(t, "stored"), stored), b.pullAsClient(soon(t), app(t, "1"), img)); err != nil {
			t.Error(err)
		}
	}
	if list, err := b.Referrers(soon(t), appRepo(), img.Root.Digest, ""); err != nil || len(list.Manifests) > 0 {
		t.Errorf("referrers: %v, %v, want none", list, err)
	}
	if h := b.Store.Health(); h.State != cache.StateDegraded {
		t.Errorf("health is %+v, want degraded", h)
	}
}

// TestPassedManifestIsRemembered: what could not be stored costs no request for
// each time that it is asked for, is no hit, and makes no tag; it is stored as
// soon as the disk takes it. A pull by hand says why it cannot.
func TestPassedManifestIsRemembered(t *testing.T) {
	t.Parallel()
	disk := disktest.NewFaulty(cache.OSDisk())
	img := build(1)
	b, up := one(t, img, func(s *setup) { s.disk = disk })
	disk.FailFrom(1, syscall.EROFS, disktest.Changes()...)
	res := b.resolve(app(t, "1"), Miss)
	if !errors.Is(res.Unstored, syscall.EROFS) {
		t.Errorf("unstored is %v, want the disk's error", res.Unstored)
	}
	byDigest := app(t, img.Root.Digest.String())
	if n := counted(up, func() {
		b.resolve(byDigest, Miss)
		if m, err := b.Manifest(soon(t), byDigest); err != nil || m.Outcome != Miss || digest.FromBytes(m.Data) != img.Root.Digest {
			t.Errorf("manifest: %v, %q, want it from memory", err, m.Outcome)
		}
		if data, outcome, err := b.read(appRepo(), img.Root.Digest); err != nil || outcome != Miss || digest.FromBytes(data) != img.Root.Digest {
			t.Errorf("manifest as blob: %v, %q, want it from memory", err, outcome)
		}
	}); n != 0 {
		t.Errorf("%d requests for a manifest that was just passed through, want 0", n)
	}
	if _, err := b.Store.Tag(app(t, "1").String()); !errdefs.IsNotFound(err) {
		t.Errorf("tag: %v, want none: its manifest is not stored", err)
	}
	_, err := b.Pull(soon(t), app(t, "1"), PullOptions{})
	if !errors.Is(err, syscall.EROFS) {
		t.Errorf("pull by hand: %v, want the disk's error", err)
	}
	mentions(t, err, "disk does not take it", "larder status")
	other := Repository{Host: DockerHub, Path: "library/other"}
	if ref, err := other.WithObject(img.Root.Digest.String()); err != nil {
		t.Error(err)
	} else if _, err := b.Manifest(soon(t), ref); !errdefs.IsNotFound(err) {
		t.Errorf("manifest of another repository: %v, want not found", err)
	}
	if h := b.Store.Health(); h.State != cache.StateDegraded || h.Passed == 0 {
		t.Errorf("health is %+v, want degraded", h)
	}
}

// TestPassedIsStoredLater: a manifest that was passed through is stored when it is
// asked for again and the disk takes it.
func TestPassedIsStoredLater(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img)
	up.Stop()
	b.passed.add(appRepo(), passedManifest{descriptor: img.Root, data: img.Manifests[0].Data, source: "upstream.test", why: syscall.EROFS})
	byDigest := app(t, img.Root.Digest.String())
	b.resolve(byDigest, Hit)
	if b.passed.why(appRepo(), img.Root.Digest) != nil {
		t.Error("it is kept in memory although it is stored")
	}
	b.resolve(byDigest, Hit)
	if facts, err := b.Store.Facts(img.Root.Digest); err != nil || facts.Source != "upstream.test" {
		t.Errorf("facts are %+v, %v, want it stored with its source", facts, err)
	}
	if !b.isLinked(appRepo(), img.Root.Digest) {
		t.Error("it is not known to belong to its repository")
	}
}

// TestPassedBound: the memory of what is passed through has an end.
func TestPassedBound(t *testing.T) {
	t.Parallel()
	p := newPassed()
	data := make([]byte, 4<<20)
	for i := range 20 {
		m := passedManifest{data: data, why: errors.New("full")}
		m.descriptor.Digest = digest.FromString(fmt.Sprint(i))
		p.add(appRepo(), m)
		p.add(appRepo(), m) // replaces itself
	}
	if p.bytes != maxPassedBytes || p.all.Len() != maxPassedBytes/len(data) {
		t.Errorf("%d manifests of %d bytes are kept, want %d bytes", p.all.Len(), p.bytes, maxPassedBytes)
	}
	if p.why(appRepo(), digest.FromString("19")) == nil || p.why(appRepo(), digest.FromString("0")) != nil {
		t.Error("the oldest must go first")
	}
}

// TestFaultyDiskWidensNoGrant: while the index cannot be read or written, what is
// private is for those whose upstream lets them have it, and for nobody else.
func TestFaultyDiskWidensNoGrant(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(t *testing.T, b privateBench, disk *disktest.Faulty){
		"index lost": func(t *testing.T, b privateBench, _ *disktest.Faulty) {
			if err := os.Truncate(filepath.Join(b.root, "index.db"), 0); err != nil {
				t.Fatal(err)
			}
		},
		"read-only": func(_ *testing.T, _ privateBench, disk *disktest.Faulty) {
			disk.FailFrom(1, syscall.EROFS, disktest.Changes()...)
		},
		"no reads": func(_ *testing.T, _ privateBench, disk *disktest.Faulty) {
			disk.FailFrom(1, syscall.EIO, disktest.Read, disktest.Open)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := disktest.NewFaulty(cache.OSDisk())
			b := newPrivateBench(t, func(s *setup) { s.disk = disk })
			t.Cleanup(disk.Heal)
			before, after, elsewhere := build(1), build(2), build(3)
			for tag, img := range map[string]remotestest.Image{"before": before, "after": after} {
				b.up.PutImage(secretA().Path, tag, img)
			}
			b.up.PutImage(secretB().Path, "1", elsewhere)
			pull := func(tag string, img remotestest.Image) {
				ref := inRepo(t, secretA(), tag)
				if err := b.pullAsClient(b.admitted(secretA(), tag), ref, img); err != nil {
					t.Errorf("%s: %v", tag, err)
				}
			}
			pull("before", before)
			fail(t, b, disk)
			pull("before", before)
			pull("after", after)
			ctx := b.admitted(secretB(), "1")
			for _, desc := range slices.Concat(before.Descriptors(), after.Descriptors()) {
				if blob, err := b.Blob(ctx, ctx, secretB(), desc.Digest); err == nil {
					blob.Close()
					t.Errorf("%s of a private repository is served to another", desc.Digest)
				}
				ref := inRepo(t, secretB(), desc.Digest.String())
				if _, err := b.Manifest(ctx, ref); err == nil {
					t.Errorf("manifest %s of a private repository is served to another", desc.Digest)
				}
			}
		})
	}
}

// TestLeaveWhileRead: who does not wait until a stored blob is read as a whole
// has nobody ask upstream for it.
func TestLeaveWhileRead(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, _ := one(t, img)
	want := img.Blobs[0]
	path := b.blobFile(want.Descriptor.Digest) // of which the index knows nothing
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, want.Data, 0o400)); err != nil {
		t.Fatal(err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	blob, err := b.Blob(gone, t.Context(), appRepo(), want.Descriptor.Digest)
	if err == nil {
		blob.Close()
	}
	if passed := b.Store.Health().Passed; passed != 0 {
		t.Errorf("upstream was asked for a blob that is being read: %v", err)
	}
}
