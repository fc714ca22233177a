package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
)

// What is pinned by a file, the configuration or the command line outlives the
// removal of all else, a kill of the daemon and the loss of the registry: both
// platforms, a signature that ORAS attached, and one under cosign's tag. Changes
// of the pin file hold without a restart.
func TestPinsOutliveRemoval(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "registry")
	registry, meter := b.registry()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 93, Platforms: []string{"linux/amd64", "linux/arm64"}})
	other := remotestest.Build(remotestest.ImageSpec{Seed: 94})
	for tag, img := range map[string]remotestest.Image{"1": img, "2": other, "3": img, "4": img} {
		if err := remotestest.Push(t.Context(), registry.URL, "library/app", tag, img); err != nil {
			t.Fatal(err)
		}
	}
	signature, err := attach(t.Context(), orasRepository(t, registry.URL, "library/app"), img.Root, "application/vnd.example.signature", []byte("signed"))
	if err != nil {
		t.Fatal(err)
	}
	cosign := remotestest.SignatureOf(img.Root.Digest, []byte(`{"critical":{}}`))
	if err := remotestest.Push(t.Context(), registry.URL, "library/app", remotestest.SignatureTag(img.Root.Digest, ".sig"), cosign); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(b.dir, "pins")
	writePins := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	writePins("app:1 # by file\n")
	l := b.larder("pins_file = \"" + file + "\"\n" + dockerHub(meter.URL()) + "[[pins]]\nname = \"docker.io/library/*:2\"\n")
	for _, tag := range []string{"1", "2", "3", "4"} {
		run(t, l, "pull", "app:"+tag, "--platform", "all")
	}
	if err := meter.Cut(); err != nil {
		t.Fatal(err)
	}
	// refused and removed say whether a removal is.
	refused := func(tag, why string) {
		t.Helper()
		if _, err := l.Run(t.Context(), "rm", "app:"+tag); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("rm app:%s: got %v, want it refused with %q", tag, err, why)
		}
	}
	removed := func(tag string) (res struct{ Blobs int }) {
		t.Helper()
		if err := json.Unmarshal([]byte(run(t, l, "rm", "--json", "app:"+tag)), &res); err != nil {
			t.Error(err)
		}
		return res
	}
	whole := func() {
		t.Helper()
		descs := append(append(img.Descriptors(), cosign.Descriptors()...), signature)
		for _, d := range descs {
			url := blobURL(l.URL, "library/app", d.Digest)
			if strings.Contains(d.MediaType, "manifest") || strings.Contains(d.MediaType, "index") {
				url = manifestURL(l.URL, "library/app", d.Digest.String())
			}
			if a := get(t, url); !a.whole(d.Digest) {
				t.Errorf("%s %s: got %v, want it whole", d.MediaType, d.Digest, a)
			}
		}
		mirror := orasRepository(t, l.URL, "docker-hub/library/app")
		if found := referrersOf(t, mirror, img.Root, ""); len(found) != 1 || found[0].Digest != signature.Digest {
			t.Errorf("referrers are %v, want the signature", found)
		}
	}
	run(t, l, "pin", "app:3", "--owner", "tests", "--reason", "by hand")
	removed("4")
	if err := l.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused("1", "by file (by file): take its line out of "+file)
	refused("2", "by config as docker.io/library/*:2")
	refused("3", "by tests (by hand): larder unpin --owner tests docker.io/library/app:3")
	whole()
	writePins("not a pin\n")
	refused("1", "by file")
	writePins(img.Root.Digest.String() + "\n")
	if res := removed("1"); res.Blobs != 0 {
		t.Errorf("rm app:1 deleted %d blobs of what is pinned", res.Blobs)
	}
	run(t, l, "unpin", "app:3", "--owner", "tests")
	if res := removed("3"); res.Blobs != 0 {
		t.Errorf("rm app:3 deleted %d blobs of what is pinned", res.Blobs)
	}
	whole() // for the digest alone: no tag is left
	if out := run(t, l, "pins"); strings.Contains(out, "absent") || !strings.Contains(out, img.Root.Digest.String()) {
		t.Errorf("pins prints\n%s", out)
	}
}
