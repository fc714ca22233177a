package remotes

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// accompanied is an image of three platforms, of which two are asked for, with a
// referrer and a signature of cosign's for the index, and a referrer for one of
// the platforms.
type accompanied struct {
	img                remotestest.Image
	arm64              ocispec.Descriptor
	index, arm, cosign ocispec.Descriptor // companions
}

// putAccompanied puts it under library/app:1, :keep and library/other:1.
func putAccompanied(t *testing.T, up *remotestest.Registry) accompanied {
	t.Helper()
	c := accompanied{img: remotestest.Build(multi())}
	c.arm64 = c.img.Manifests[1].Descriptor // in the order of the platforms
	for _, repo := range []string{"library/app", "library/other"} {
		up.PutImage(repo, "1", c.img)
		c.index = up.PutReferrer(repo, c.img.Root, sigType, []byte("signature"))
		c.arm = up.PutReferrer(repo, c.arm64, sbomType, []byte("packages"))
		c.cosign = up.PutSignature(repo, c.img.Root.Digest, ".sig", []byte("cosign"))
	}
	up.PutImage("library/app", "keep", c.img)
	return c
}

// stored returns what is stored: digests, and the repositories' manifests.
func (b *bench) stored() []string {
	b.t.Helper()
	var all []string
	err := b.Store.Walk(soon(b.t), func(info content.Info) error {
		all = append(all, info.Digest.String())
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// linked returns the manifests of a repository.
func (b *bench) linked(repository string) []digest.Digest {
	b.t.Helper()
	links, err := b.Store.LinksOf(repository)
	if err != nil {
		b.t.Fatal(err)
	}
	var all []digest.Digest
	for _, l := range links {
		all = append(all, l.Digest)
	}
	return all
}

// TestPinKeepsAll: whatever kind of pin it is, all that was pulled stays through
// the removal of everything else, with the lists of referrers; and without the
// pin all goes.
func TestPinKeepsAll(t *testing.T) {
	t.Parallel()
	root := remotestest.Build(multi()).Root.Digest.String()
	for name, tc := range map[string]struct {
		pin     string
		held    string   // reference whose removal is refused
		removed []string // references that can be removed
	}{
		"tag":       {"docker.io/library/app:keep", "app:keep", []string{"app:1", "app@" + root, "other:1"}},
		"pattern":   {"docker.io/library/app:k*", "app:keep", []string{"app:1", "app@" + root, "other:1"}},
		"reference": {"docker.io/library/app@" + root, "app@" + root, []string{"app:1", "app:keep", "other:1"}},
		"digest":    {root, "app@" + root, []string{"app:1", "app:keep", "other:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := remotestest.New(t)
			c := putAccompanied(t, up)
			b := newBench(t, []*remotestest.Registry{up}, withCompanions)
			for _, text := range []string{"app:1", "app:keep", "app@" + root, "other:1"} {
				res, err := b.Pull(soon(t), b.ref(text), PullOptions{Platforms: []string{"linux/amd64", "linux/arm64/v8"}})
				if err != nil || res.Unaccompanied != nil {
					t.Fatalf("%s: %+v, %v", text, res, err)
				}
			}
			up.Stop()
			before, links := b.stored(), b.linked("docker.io/library/app")
			if _, err := b.Pin(soon(t), cache.Pin{Name: tc.pin}); err != nil {
				t.Fatal(err)
			}
			for _, text := range tc.removed {
				if removed, err := b.Remove(soon(t), b.ref(text)); err != nil || removed.Blobs != 0 {
					t.Errorf("rm %s: %+v, %v, want nothing deleted", text, removed, err)
				}
			}
			if _, err := b.Remove(soon(t), b.ref(tc.held)); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("rm %s: %v, want it refused", tc.held, err)
			}
			if after := b.stored(); !slices.Equal(after, before) {
				t.Errorf("%d blobs are left of %d", len(after), len(before))
			}
			if after := b.linked("docker.io/library/app"); !slices.Equal(after, links) {
				t.Errorf("links are %v, want %v", after, links)
			}
			img, err := b.Image(b.ref(tc.held))
			if err != nil || !slices.Equal(img.Platforms, []string{"linux/amd64", "linux/arm64/v8"}) || len(img.Companions) != 3 || len(img.Pins) != 1 {
				t.Errorf("the image is %+v with %d companions, %v", img.Image, len(img.Companions), err)
			}
			b.referrers(c.img.Root.Digest, "", Hit, 1)
			b.referrers(c.arm64.Digest, "", Hit, 1)
			b.resolve(app(t, remotestest.SignatureTag(c.img.Root.Digest, ".sig")), Hit)
			if err := b.Unpin(tc.pin, ""); err != nil {
				t.Fatal(err)
			}
			// By its digest alone it was pinned in each repository that had it.
			for _, text := range []string{tc.held, "other@" + root} {
				if _, err := b.Remove(soon(t), b.ref(text)); err != nil && !errdefs.IsNotFound(err) {
					t.Error(err)
				}
			}
			if left := b.stored(); len(left) != 0 {
				t.Errorf("without the pin %d blobs are left: %v", len(left), left)
			}
		})
	}
}

// ref is a reference of Docker Hub's library.
func (b *bench) ref(text string) Reference {
	b.t.Helper()
	ref, err := ParseReference(text)
	if err != nil {
		b.t.Fatal(err)
	}
	return ref
}

// TestPinOfPart: a layer alone, or one platform with what belongs to it, stays
// when the rest of the image goes.
func TestPinOfPart(t *testing.T) {
	t.Parallel()
	layer := remotestest.Build(multi()).Blobs[1].Descriptor
	up := remotestest.New(t)
	c := putAccompanied(t, up)
	b := newBench(t, []*remotestest.Registry{up}, withCompanions)
	for _, text := range []string{"app:1", "other:1"} {
		if _, err := b.Pull(soon(t), b.ref(text), PullOptions{Platforms: []string{"all"}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, dgst := range []digest.Digest{layer.Digest, c.arm64.Digest} {
		if _, err := b.Pin(soon(t), cache.Pin{Name: dgst.String()}); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"app:1", "other:1"} {
		if _, err := b.Remove(soon(t), b.ref(text)); err != nil {
			t.Fatal(err)
		}
	}
	images, err := b.Images(soon(t))
	if err != nil || len(images) != 1 || !slices.Equal(images[0].Platforms, []string{"linux/arm64/v8"}) || images[0].Missing != 0 {
		t.Errorf("images are %+v, %v, want the platform as an image of its own", images, err)
	}
	b.wantWhole(c.arm)
	b.referrers(c.arm64.Digest, "", Hit, 1)
	for dgst, want := range map[digest.Digest]bool{layer.Digest: true, c.img.Root.Digest: false, c.index.Digest: false, c.cosign.Digest: false} {
		if has, err := b.Store.Has(dgst); has != want || err != nil {
			t.Errorf("%s is stored: %t, %v, want %t", dgst, has, err, want)
		}
	}
}

// TestRemoveNamesPins: the error says of each pin whose it is, why, and how to
// take it away.
func TestRemoveNamesPins(t *testing.T) {
	t.Parallel()
	b, _ := one(t, build(1))
	b.resolve(app(t, "1"), Miss)
	file := pinFile(t, "*/app:*\n")
	b.PinFile = file
	b.Store.SetPins(cache.PinOwnerConfig, []cache.Pin{{Name: "docker.io/library/*", Reason: "base"}})
	for _, p := range []cache.Pin{{Name: "docker.io/library/app:1", Reason: "boot"}, {Name: "docker.io/library/app:1", Owner: "ci"}, {Name: "docker.io/library/a*", Owner: "ci"}} {
		if _, err := b.Pin(soon(t), p); err != nil {
			t.Fatal(err)
		}
	}
	b.refreshPins()
	b.Store.SetPins(cache.PinOwnerFile, []cache.Pin{{Name: "*/app:*"}})
	_, err := b.Remove(soon(t), app(t, "1"))
	want := strings.Join([]string{
		"image docker.io/library/app:1 is pinned",
		"  by file as */app:*: take its line out of " + file.Path(),
		"  by config as docker.io/library/* (base): take it out of [[pins]] in larder's configuration and restart larder",
		"  by ci as docker.io/library/a*: larder unpin --owner ci 'docker.io/library/a*'",
		"  by ci: larder unpin --owner ci docker.io/library/app:1",
		"  by cli (boot): larder unpin docker.io/library/app:1: failed precondition",
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	err = b.Unpin("docker.io/library/app:1", "somebody")
	if !errdefs.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
	for _, owner := range []string{cache.PinOwnerConfig, cache.PinOwnerFile} {
		b.refreshPins()
		b.Store.SetPins(cache.PinOwnerConfig, []cache.Pin{{Name: "docker.io/library/app:1"}})
		mentions(t, b.Unpin("docker.io/library/app:1", owner), "takes no pin of owner \""+owner+"\" away", "\n  by config: take it")
	}
	b.Store.SetPins(cache.PinOwnerConfig, nil)
	b.Store.SetPins(cache.PinOwnerFile, nil)
	mentions(t, err, "is not pinned by somebody, but it is\n  by ci: larder unpin --owner ci docker.io/library/app:1\n  by cli (boot)")
}

// TestPinWords: an owner and a reason are shown on terminals.
func TestPinWords(t *testing.T) {
	t.Parallel()
	b, _ := one(t, build(1))
	for _, p := range []cache.Pin{
		{Owner: "config"}, {Owner: "file"}, {Owner: "a b"}, {Owner: "a\x00"}, {Owner: strings.Repeat("a", 64)},
		{Reason: "a\nb"}, {Reason: "\x1b[2J"}, {Reason: strings.Repeat("a", 1001)},
	} {
		p.Name = "docker.io/library/app:1"
		if _, err := b.Pin(soon(t), p); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v, want it refused", p, err)
		}
	}
	if pins, err := b.Store.Pins(); err != nil || len(pins) != 0 {
		t.Errorf("pins are %v, %v, want none", pins, err)
	}
}

// TestPinSparesFromRunningRemoval: a removal that has decided already deletes
// nothing of what is pinned then.
func TestPinSparesFromRunningRemoval(t *testing.T) {
	t.Parallel()
	img := build(1)
	for _, name := range []string{"docker.io/library/app:1", "docker.io/library/*", img.Root.Digest.String(), "docker.io/library/app@" + img.Root.Digest.String()} {
		b, _ := one(t, img)
		if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil {
			t.Fatal(err)
		}
		end := b.Store.BeginRemoval()
		if _, err := b.Pin(soon(t), cache.Pin{Name: name}); err != nil {
			t.Fatal(err)
		}
		for _, d := range img.Descriptors() {
			if gone, err := b.Store.DeleteUnlessHeld(soon(t), d.Digest); gone || err != nil {
				t.Errorf("%s: %s may be deleted: %v", name, d.Digest, err)
			}
		}
		end()
	}
	b, _ := one(t, img)
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	defer b.Store.BeginRemoval()()
	layer := img.Blobs[1].Descriptor.Digest
	if _, err := b.Pin(soon(t), cache.Pin{Name: layer.String()}); err != nil {
		t.Fatal(err)
	}
	for _, d := range img.Descriptors() {
		if gone, _ := b.Store.DeleteUnlessHeld(soon(t), d.Digest); gone == (d.Digest == layer) {
			t.Errorf("a layer is pinned: %s may be deleted: %t", d.Digest, gone)
		}
	}
}

// TestPinList counts what each pin holds, and says what is absent.
func TestPinList(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img)
	up.PutImage("library/app", "2", build(2))
	for _, tag := range []string{"1", "2"} {
		if _, err := b.Pull(soon(t), app(t, tag), PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	root, layer, nowhere := img.Root.Digest.String(), img.Blobs[0].Descriptor.Digest.String(), digest.FromString("nowhere").String()
	want := map[string]PinStatus{
		"docker.io/library/app:1":           {Images: 1},
		"docker.io/library/app:3":           {Absent: true},
		"docker.io/library/app@" + root:     {Images: 2}, // the tag, and the digest by itself
		"docker.io/library/no@" + nowhere:   {Absent: true},
		"docker.io/library/*":               {Images: 3},
		"quay.io/*":                         {},
		layer:                               {}, // of a blob, which is there
		nowhere:                             {Absent: true},
		digest.FromString("other").String(): {Absent: true},
	}
	for name := range want {
		s, err := b.Pin(soon(t), cache.Pin{Name: name})
		if err != nil || s.Absent != want[name].Absent || s.Owner != cache.PinOwnerCLI || s.Created.IsZero() {
			t.Errorf("pin %s: %+v, %v", name, s, err)
		}
	}
	list, err := b.PinList(soon(t))
	if err != nil || len(list) != len(want) {
		t.Fatalf("%d pins, %v, want %d", len(list), err, len(want))
	}
	for _, s := range list {
		if w := want[s.Name]; s.Images != w.Images || s.Absent != w.Absent {
			t.Errorf("%s: %d images, absent %t, want %d, %t", s.Name, s.Images, s.Absent, w.Images, w.Absent)
		}
	}
}

// TestPinName: what can be pinned, under which name, and what not.
func TestPinName(t *testing.T) {
	t.Parallel()
	rules, err := NewRules(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	names := Names{Rules: rules, Own: map[string]bool{"localhost": true}, Listed: map[string]bool{DockerHub: true, "quay.io": true}}
	dgst := digest.FromString("x").String()
	for text, want := range map[string]string{
		"nginx":                        "docker.io/library/nginx:latest",
		"nginx:1@" + dgst:              "docker.io/library/nginx@" + dgst,
		"localhost/docker-hub/team/a":  "docker.io/team/a:latest",
		dgst:                           dgst,
		"*":                            "*",
		"quay.io/*:v1":                 "quay.io/*:v1",
		"docker.io/library/*@sha256:*": "docker.io/library/*@sha256:*",
	} {
		if got, err := names.PinName(text); got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
		if err := CheckPin(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"":                                    "empty",
		"sha256:abc":                          "digest",
		"sha256:" + strings.Repeat("A", 64):   "digest",
		"a b":                                 "reference",
		"Nginx":                               "lowercase",
		"a?*":                                 "'?' cannot stand in a pattern",
		"[a]*":                                "'[' cannot stand in a pattern",
		"*\n":                                 "cannot stand in a pattern",
		"*" + strings.Repeat("a", maxPinName): "at most 1024",
	} {
		_, err := names.PinName(text)
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v, want an invalid argument", text, err)
		}
		mentions(t, err, want)
	}
	if _, err := names.PinName("ghcr.io/a/b"); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a host that is not listed: %v", err)
	}
}

// TestPinsEverything: which patterns leave nothing to remove.
func TestPinsEverything(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"*": true, "**": true, "*/*": true, "*:*": true, "docker.io/*": false, "*@*": false, "*/*:1": false, "docker.io/a:1": false} {
		if got := PinsEverything(name); got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
	}
}

// FuzzPinPattern: a pattern pins what it matches anywhere else in larder.
func FuzzPinPattern(f *testing.F) {
	s, err := cache.Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	for _, seed := range [][2]string{{"*", "a/b:c"}, {"a*a", "a"}, {"*ab*ab*", "abab"}, {"a*b*c", "abbc"}, {"**", ""}, {"docker.io/*-lts", "docker.io/library/node:22-lts"}, {"*a*", "b"}, {"a.*", "axx"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if CheckPin(pattern) != nil || !strings.Contains(pattern, "*") || name == "" || strings.ContainsAny(name, "\n") {
			return
		}
		p, err := ParsePattern(pattern)
		if err != nil {
			t.Fatal(err)
		}
		s.SetPins(cache.PinOwnerConfig, []cache.Pin{{Name: pattern}})
		pins, err := s.PinsOf(name, "")
		if got := len(pins) == 1; err != nil || got != p.Match(name) {
			t.Errorf("%q pins %q: %t, %v, want %t", pattern, name, got, err, !got)
		}
	})
}
