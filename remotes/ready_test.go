package remotes

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/larder-project/larder/cache"
)

// What is answered at once is what Manifest and Resolve would answer: a hit that
// asks nobody. All else is left to them.
func TestReady(t *testing.T) {
	t.Parallel()
	img := build(1)
	digestOf := func(t *testing.T) Reference { return app(t, img.Root.Digest.String()) }
	for name, c := range map[string]struct {
		object string // what is asked for; "": the manifest's digest
		data   bool
		want   bool
		before func(b *bench, ref Reference)
	}{
		"tag":            {object: "1", want: true},
		"tag, its bytes": {object: "1", data: true, want: true},
		"digest":         {data: true, want: true},
		"digest without its bytes, once it counts as asked for": {want: true, before: func(b *bench, ref Reference) { b.resolve(ref, Hit) }},
		"digest without its bytes":                              {},
		"tag that is not known":                                 {object: "2"},
		"tag outside its window":                                {object: "1", before: func(b *bench, _ Reference) { b.expire(app(b.t, "1")) }},
		"tag that was removed": {object: "1", before: func(b *bench, _ Reference) {
			if err := b.Store.DeleteTag(app(b.t, "1").String()); err != nil {
				b.t.Fatal(err)
			}
		}},
		"tag whose size is wrong, its bytes": {object: "1", data: true, before: func(b *bench, ref Reference) {
			tag, err := b.Store.Tag(ref.String())
			if err != nil {
				b.t.Fatal(err)
			}
			tag.Target.Size++
			if err := b.Store.PutTag(tag); err != nil {
				b.t.Fatal(err)
			}
		}},
		"tag, the file gone":    {object: "1", before: lose(img.Root.Digest.String())},
		"digest, the file gone": {data: true, before: lose(img.Root.Digest.String())},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, up := one(t, img)
			b.resolve(app(t, "1"), Miss)
			if _, err := b.Manifest(soon(t), digestOf(t)); err != nil {
				t.Fatal(err)
			}
			ref := digestOf(t)
			if c.object != "" {
				ref = app(t, c.object)
			}
			if c.before != nil {
				c.before(b, ref)
			}
			n := counted(up, func() {
				m, ok := b.Ready(soon(t), ref, c.data)
				if ok != c.want {
					t.Fatalf("ready: %v, want %v", ok, c.want)
				}
				if ok && (m.Outcome != Hit || m.Descriptor.Digest != img.Root.Digest || m.Descriptor.MediaType != img.Root.MediaType) {
					t.Errorf("got %+v", m.Resolved)
				}
				if ok && c.data && int64(len(m.Data)) != img.Root.Size {
					t.Errorf("got %d bytes, want %d", len(m.Data), img.Root.Size)
				}
			})
			if n > 0 {
				t.Errorf("upstream saw %d requests", n)
			}
		})
	}
}

// lose removes a manifest's file behind larder's back.
func lose(dgst string) func(b *bench, _ Reference) {
	return func(b *bench, _ Reference) {
		b.t.Helper()
		if err := os.Remove(b.blobFile(app(b.t, dgst).Digest)); err != nil {
			b.t.Fatal(err)
		}
	}
}

// A use that is answered at once counts as a use.
func TestReadyIsUse(t *testing.T) {
	t.Parallel()
	b, _ := one(t, build(1))
	ref := app(t, "1")
	dgst := b.resolve(ref, Miss).Descriptor.Digest
	before := time.Now()
	for _, asked := range []Reference{ref, app(t, dgst.String())} {
		b.resolve(asked, Hit)
	}
	if _, ok := b.Ready(soon(t), ref, false); !ok {
		t.Fatal("not ready")
	}
	if tag, err := b.Store.Tag(ref.String()); err != nil || !tag.Used.After(before) {
		t.Errorf("tag used at %s, %v, want after %s", tag.Used, err, before)
	}
	end := b.Store.BeginRemoval()
	defer end()
	if _, ok := b.Ready(soon(t), app(t, dgst.String()), true); !ok {
		t.Fatal("not ready")
	}
	if removed, err := b.Store.DeleteUnlessHeld(soon(t), dgst); removed || err != nil {
		t.Errorf("removed while it was served: %v, %v", removed, err)
	}
}

// Who is denied, or has to show a pull secret, is not answered past that.
func TestReadyKeepsPolicies(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]Settings{"denied": {Deny: []string{"*"}}, "upstream first": {Mode: ModeUpstreamFirst}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := one(t, build(1), withSettings(t, s))
			img := build(1)
			data, now := bytes.Clone(img.Manifests[len(img.Manifests)-1].Data), time.Now()
			if err := b.Store.Put(soon(t), img.Root.Digest, data, cache.Facts{}); err != nil {
				t.Fatal(err)
			}
			ref := app(t, "1")
			if err := b.Store.PutTag(cache.Tag{Name: ref.String(), Target: img.Root, Created: now, Moved: now, Validated: now}); err != nil {
				t.Fatal(err)
			}
			if m, ok := b.Ready(soon(t), ref, false); ok {
				t.Errorf("got %+v", m.Resolved)
			}
		})
	}
}
