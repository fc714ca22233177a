package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// proxied is a node whose containerd has larder as its content store and differ.
type proxied struct {
	*bench
	registry   *parts.Registry
	upstream   *parts.Meter
	l          *parts.Larder
	node       *parts.Meter // between containerd and larder's mirror
	certs      string
	containerd *parts.Containerd
}

// newProxied starts the node. extra is more of larder's configuration, and proxy
// more of its table for this.
func newProxied(t *testing.T, o parts.ContainerdOptions, extra, proxy string) *proxied {
	t.Helper()
	p := newProxying(t, o, extra, proxy)
	o.CertsDir, o.Proxy = p.certs, p.socket()
	p.containerd = p.containerdWith(o)
	return p
}

// newProxying is newProxied without its containerd.
func newProxying(t *testing.T, o parts.ContainerdOptions, extra, proxy string) *proxied {
	t.Helper()
	return newProxyingOn(t, o, "", extra, proxy)
}

// newProxyingOn is newProxying with the store in a folder; "": as ever.
func newProxyingOn(t *testing.T, o parts.ContainerdOptions, root, extra, proxy string) *proxied {
	t.Helper()
	suffix := ""
	if o.Release != "" {
		suffix = "-" + o.Release
	}
	b := newBench(t, "larder", "containerd"+suffix, "ctr"+suffix, "registry")
	registry, upstream := b.registry()
	p := &proxied{bench: b, registry: registry, upstream: upstream}
	config := extra + dockerHub(upstream.URL()) + fmt.Sprintf("\n[proxy]\nenabled = true\nsocket = %q\ncontainerd = %q\n%s\n", p.socket(), filepath.Join(b.dir, "containerd", "c.sock"), proxy)
	if root == "" {
		p.l = b.larder(config)
	} else {
		p.l = b.larderOn(root, config)
	}
	p.certs, p.node = b.certsBehindMeter(p.l)
	return p
}

// socket is that of larder's proxy plugins.
func (p *proxied) socket() string { return filepath.Join(p.dir, "p.sock") }

// checkContent reads all that containerd has in its database.
func (p *proxied) checkContent() (blobs int) {
	p.t.Helper()
	all := strings.Fields(ctr(p.t, p.containerd, "content", "ls", "-q"))
	for _, dgst := range all {
		data, err := p.containerd.Ctr(p.t.Context(), "content", "get", dgst)
		if err != nil {
			p.t.Errorf("%s is in containerd's database: %v", dgst, err)
		} else if got := digest.FromString(data); got.String() != dgst {
			p.t.Errorf("%s has the digest %s", dgst, got)
		}
	}
	return len(all)
}

// blocksBelow is what the files in a folder take on disk, in bytes.
func blocksBelow(t *testing.T, dir string) (total int64) {
	t.Helper()
	eachFile(t, dir, func(_ uint64, bytes int64) { total += bytes })
	return total
}

// eachFile calls fn with inode and bytes on disk of each file below a folder.
func eachFile(t *testing.T, dir string, fn func(inode uint64, bytes int64)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		var st syscall.Stat_t
		if err == nil && !d.IsDir() {
			if err = syscall.Lstat(path, &st); err == nil {
				fn(st.Ino, st.Blocks*512)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestProxyPlugin: with larder as containerd's content store a warm pull is one
// HEAD and no byte, on both pull paths; there is one copy on disk; containers run,
// export and push work, and upstream may be gone.
func TestProxyPlugin(t *testing.T) {
	t.Parallel()
	for name, local := range map[string]bool{"transfer": false, "local": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProxied(t, parts.ContainerdOptions{LocalPull: local}, "log.level = \"debug\"\n"+noCompanions, "")
			binary, err := os.ReadFile(p.bin.Path("larder"))
			if err != nil {
				t.Fatal(err)
			}
			img := remotestest.Build(remotestest.ImageSpec{
				Seed: 300, Layers: []int64{5 << 20, 100_000},
				Files: []remotestest.File{{Path: "larder", Mode: 0o755, Data: binary}}, Cmd: []string{"/larder", "version"},
			})
			if err := remotestest.Push(t.Context(), p.registry.URL, "library/app", "1", img); err != nil {
				t.Fatal(err)
			}
			images := imageService(t, p.containerd)

			criPull(t, images, "docker.io/library/app:1")
			if p.upstream.Total().Requests == 0 {
				t.Fatal("cold pull: upstream was not asked")
			}
			if err := p.upstream.Cut(); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if err := p.containerd.Forget(t.Context(), "k8s.io"); err != nil {
					t.Fatal(err)
				}
				before := len(p.node.Exchanges())
				criPull(t, images, "docker.io/library/app:1")
				for _, x := range p.node.Exchanges()[before:] {
					if x.Method != http.MethodHead || x.Bytes > 0 {
						t.Errorf("warm pull %d: %s %s, %d bytes", i, x.Method, x.Path, x.Bytes)
					}
				}
				if n := len(p.node.Exchanges()) - before; n != 1 {
					t.Errorf("warm pull %d: %d requests, want one HEAD", i, n)
				}
			}
			if n := strings.Count(p.l.Log(), "layer is unpacked"); n != 4*(len(img.Blobs)-1) {
				t.Errorf("larder has unpacked %d layers, want each of %d four times", n, len(img.Blobs)-1)
			}
			if n := blocksBelow(t, filepath.Join(p.dir, "containerd", "root", "io.containerd.content.v1.content")); n > 0 {
				t.Errorf("containerd has %d bytes of content of its own", n)
			}
			out, err := p.containerd.Ctr(t.Context(), "-n", "k8s.io", "images", "ls", "-q")
			if err != nil || !strings.Contains(out, "docker.io/library/app:1") {
				t.Fatalf("images: %q, %v", out, err)
			}
			p.useImage()
		})
	}
}

// useImage runs a container, exports the image and pushes it.
func (p *proxied) useImage() {
	p.t.Helper()
	archive := filepath.Join(p.dir, "app.tar")
	for _, args := range [][]string{
		{"-n", "k8s.io", "images", "export", archive, "docker.io/library/app:1"},
		{"-n", "default", "images", "import", archive},
	} {
		if _, err := p.containerd.Ctr(p.t.Context(), args...); err != nil {
			p.t.Fatal(err)
		}
	}
	printed, err := p.containerd.RunContainer(p.t.Context(), "docker.io/library/app:1")
	if err != nil || !strings.Contains(printed, "larder") {
		p.t.Errorf("a container printed %q, %v, want larder's version", printed, err)
	}
	host := strings.TrimPrefix(p.registry.URL, "http://")
	if _, err := p.containerd.Ctr(p.t.Context(), "-n", "default", "images", "push", "--plain-http", host+"/pushed/app:1", "docker.io/library/app:1"); err != nil {
		p.t.Errorf("push: %v", err)
	}
	if a := get(p.t, p.registry.URL+"/v2/pushed/app/manifests/1", "Accept", ocispec.MediaTypeImageManifest); a.status != http.StatusOK {
		p.t.Errorf("what was pushed: %v", a)
	}
}

// TestProxyCopies: a layer that was unpacked is unpacked from its copy the next time.
func TestProxyCopies(t *testing.T) {
	t.Parallel()
	p := newProxied(t, parts.ContainerdOptions{}, "log.level = \"debug\"\n"+noCompanions, `copies = "1GiB"`)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 310, Layers: []int64{5 << 20, 2 << 20, 1000}})
	if err := remotestest.Push(t.Context(), p.registry.URL, "library/copied", "1", img); err != nil {
		t.Fatal(err)
	}
	images := imageService(t, p.containerd)
	criPull(t, images, "docker.io/library/copied:1")
	eventually(t, "copies are made of the two large layers", func() bool {
		return strings.Count(p.l.Log(), "copy of a layer is made") == 2
	})
	if err := p.containerd.Forget(t.Context(), "k8s.io"); err != nil {
		t.Fatal(err)
	}
	criPull(t, images, "docker.io/library/copied:1")
	if n := strings.Count(p.l.Log(), "layer is read from its copy"); n != 2 {
		t.Errorf("%d layers were read from their copies, want 2", n)
	}
	if n := strings.Count(p.l.Log(), "layer is unpacked"); n != 2*3 {
		t.Errorf("%d layers were unpacked, want 6", n)
	}
}
