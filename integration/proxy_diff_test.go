package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// newDiffAlone is a node whose containerd keeps its own content store, and has
// larder unpack.
func newDiffAlone(t *testing.T, o parts.ContainerdOptions) *proxied {
	t.Helper()
	p := newProxying(t, o, "log.level = \"debug\"\n"+noCompanions, "services = [\"diff\"]")
	o.CertsDir, o.Differ = p.certs, p.socket()
	p.containerd = p.containerdWith(o)
	return p
}

// runnable is an image that runs as a container: see proxied.run.
func (p *proxied) runnable(seed uint64) remotestest.Image {
	p.t.Helper()
	binary, err := os.ReadFile(p.bin.Path("larder"))
	if err != nil {
		p.t.Fatal(err)
	}
	return remotestest.Build(remotestest.ImageSpec{
		Seed: seed, Layers: []int64{5 << 20, 100_000},
		Files: []remotestest.File{{Path: "larder", Mode: 0o755, Data: binary}}, Cmd: []string{"/larder", "version"},
	})
}

// push makes an image known upstream.
func (p *proxied) push(name, tag string, img remotestest.Image) {
	p.t.Helper()
	if err := remotestest.Push(p.t.Context(), p.registry.URL, name, tag, img); err != nil {
		p.t.Fatal(err)
	}
}

// unpacked is how many layers larder has unpacked, and how many of these it read
// through containerd.
func (p *proxied) unpacked() (all, through int) {
	log := p.l.Log()
	return strings.Count(log, "layer is unpacked"), strings.Count(log, "layer is read through containerd")
}

// TestDiffAlone: beside containerd's own content store larder unpacks each layer, on
// both pull paths: from its own files what it has, and through containerd what came
// past it.
func TestDiffAlone(t *testing.T) {
	t.Parallel()
	for name, local := range map[string]bool{"transfer": false, "local": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newDiffAlone(t, parts.ContainerdOptions{LocalPull: local})
			img, past := p.runnable(310), p.runnable(311)
			layers := len(img.Blobs) - 1
			p.push("library/app", "1", img)
			p.push("library/past", "1", past)
			images := imageService(t, p.containerd)

			criPull(t, images, "docker.io/library/app:1")
			if all, _ := p.unpacked(); all != layers {
				t.Errorf("cold pull: larder has unpacked %d layers, want %d", all, layers)
			}
			if n := blocksBelow(t, filepath.Join(p.dir, "containerd", "root", "io.containerd.content.v1.content")); n < 5<<20 {
				t.Errorf("containerd has %d bytes of content of its own, want all", n)
			}
			if err := p.containerd.Forget(t.Context(), "k8s.io"); err != nil {
				t.Fatal(err)
			}
			_, before := p.unpacked()
			criPull(t, images, "docker.io/library/app:1")
			if all, through := p.unpacked(); all != 2*layers || through != before {
				t.Errorf("warm pull: larder has unpacked %d layers, %d through containerd; want %d and none", all, through-before, 2*layers)
			}

			// Past larder: from the registry, and from an archive. The layer with the
			// program is in both images.
			own := strings.TrimPrefix(p.registry.URL, "http://") + "/library/past:1"
			for _, args := range [][]string{
				append(pullArgs(own, filepath.Join(p.dir, "none"), local), "--plain-http"),
				{"images", "export", filepath.Join(p.dir, "past.tar"), own},
				{"images", "rm", "--sync", own},
				{"images", "import", fmt.Sprintf("--local=%t", local), filepath.Join(p.dir, "past.tar")},
			} {
				ctr(t, p.containerd, args...)
			}
			if all, through := p.unpacked(); all != 4*layers || through != before+2*(layers-1) {
				t.Errorf("past larder: larder has unpacked %d layers, %d through containerd; want %d and %d", all-2*layers, through-before, 2*layers, 2*(layers-1))
			}
			printed, err := p.containerd.RunContainer(t.Context(), own)
			if err != nil || !strings.Contains(printed, "larder") {
				t.Errorf("a container printed %q, %v, want larder's version", printed, err)
			}
			if got := len(strings.Fields(ctr(t, p.containerd, "images", "check", "-q"))); got != 1 {
				t.Errorf("%d images are whole, want 1", got)
			}
		})
	}
}

// encrypted is an image whose layers say that they are encrypted, with a cipher that
// changes nothing.
func encrypted(t *testing.T, img remotestest.Image) remotestest.Image {
	t.Helper()
	var manifest ocispec.Manifest
	if err := json.Unmarshal(img.Manifests[0].Data, &manifest); err != nil {
		t.Fatal(err)
	}
	for i := range manifest.Layers {
		manifest.Layers[i].MediaType += "+encrypted"
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	img.Root.Digest, img.Root.Size = digest.FromBytes(data), int64(len(data))
	img.Manifests = []remotestest.Blob{{Descriptor: img.Root, Data: data}}
	return img
}

// decrypting has containerd decrypt such layers.
const decrypting = `
[stream_processors."io.containerd.ocicrypt.decoder.v1.tar.gzip"]
  accepts = ["application/vnd.oci.image.layer.v1.tar+gzip+encrypted"]
  returns = "application/vnd.oci.image.layer.v1.tar+gzip"
  path = "cat"
  args = []
`

// TestDiffAloneEncrypted: a layer that larder does not know is unpacked by containerd
// on the path that has another differ; on the other, no layer of that kind is.
func TestDiffAloneEncrypted(t *testing.T) {
	t.Parallel()
	for name, local := range map[string]bool{"transfer": false, "local": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newDiffAlone(t, parts.ContainerdOptions{LocalPull: local, Extra: decrypting})
			p.push("library/app", "1", encrypted(t, remotestest.Build(remotestest.ImageSpec{Seed: 312})))
			ref := "docker.io/library/app:1"
			_, err := imageService(t, p.containerd).PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}})
			if local && err != nil {
				t.Error(err)
			}
			if !local && (err == nil || !strings.Contains(err.Error(), "not implemented")) {
				t.Errorf("%v, want not implemented: the documentation is wrong", err)
			}
			if all, _ := p.unpacked(); all != 0 {
				t.Errorf("larder has unpacked %d layers, want none", all)
			}
		})
	}
}

// TestDiffAloneWithoutLarder: while larder is down nothing can be unpacked, on either
// path, and what is unpacked runs. When it is back, containerd is as before.
func TestDiffAloneWithoutLarder(t *testing.T) {
	t.Parallel()
	for name, local := range map[string]bool{"transfer": false, "local": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newDiffAlone(t, parts.ContainerdOptions{LocalPull: local})
			p.push("library/app", "1", p.runnable(313))
			p.push("library/app", "2", remotestest.Build(remotestest.ImageSpec{Seed: 314}))
			images := imageService(t, p.containerd)
			ctr(t, p.containerd, pullArgs("docker.io/library/app:1", p.certs, local)...)
			if err := p.l.Kill(); err != nil {
				t.Fatal(err)
			}
			if printed, err := p.containerd.RunContainer(t.Context(), "docker.io/library/app:1"); err != nil || !strings.Contains(printed, "larder") {
				t.Errorf("a container printed %q, %v, want larder's version", printed, err)
			}
			own := strings.TrimPrefix(p.registry.URL, "http://") + "/library/app:2"
			_, err := p.containerd.Ctr(t.Context(), append(pullArgs(own, filepath.Join(p.dir, "none"), local), "--plain-http")...)
			if err == nil || !strings.Contains(err.Error(), p.socket()) {
				t.Errorf("%v, want an error that names larder's socket: the documentation is wrong", err)
			}
			if err := p.l.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "larder is back", func() bool {
				_, err := images.PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: "docker.io/library/app:2"}})
				return err == nil
			})
		})
	}
}
