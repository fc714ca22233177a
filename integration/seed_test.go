package integration

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// seeded is a node whose larder links stored images into containerd's content.
type seeded struct {
	*bench
	registry   *parts.Registry
	upstream   *parts.Meter
	l          *parts.Larder
	node       *parts.Meter // between containerd and larder's mirror
	certs      string
	content    string // containerd's content folder
	containerd *parts.Containerd
	images     cri.ImageServiceClient
}

// newSeeded starts the node. content is containerd's content folder as larder's
// configuration has it; "": as it is.
func newSeeded(t *testing.T, o parts.ContainerdOptions, content string) *seeded {
	t.Helper()
	s := &seeded{bench: newBench(t, "larder", "registry", "containerd", "ctr", "containerd-"+oldRelease, "ctr-"+oldRelease)}
	s.certs = filepath.Join(s.dir, "certs.d")
	s.content = filepath.Join(s.dir, "containerd", "root", "io.containerd.content.v1.content")
	o.CertsDir = s.certs
	s.containerd = s.containerdWith(o)
	s.images = imageService(t, s.containerd)
	s.registry, s.upstream = s.bench.registry()
	if content == "" {
		content = s.content
	}
	s.l = s.larder("log.level = \"debug\"\n" + noCompanions + dockerHub(s.upstream.URL()) + fmt.Sprintf("\n[seed]\nenabled = true\ncontent = %q\n", content))
	_, s.node = s.certsBehindMeter(s.l)
	return s
}

// push makes an image that can be run, and pushes it.
func (s *seeded) push(name string, seed uint64, platforms ...string) remotestest.Image {
	s.t.Helper()
	binary, err := os.ReadFile(s.bin.Path("larder"))
	if err != nil {
		s.t.Fatal(err)
	}
	img := remotestest.Build(remotestest.ImageSpec{
		Seed: seed, Layers: []int64{5 << 20, 100_000}, Platforms: platforms,
		Files: []remotestest.File{{Path: "larder", Mode: 0o755, Data: binary}}, Cmd: []string{"/larder", "version"},
	})
	if err := remotestest.Push(s.t.Context(), s.registry.URL, "library/"+name, "1", img); err != nil {
		s.t.Fatal(err)
	}
	return img
}

// await has larder link an image that is stored, and containerd take it: containerd
// of 1.x makes its content folder for the first image only, and larder looks for it
// now and then.
func (s *seeded) await(name string, img remotestest.Image) {
	s.t.Helper()
	eventually(s.t, name+" is linked", func() bool {
		if _, err := fetch(s.t.Context(), http.MethodHead, manifestURL(s.l.URL, "library/"+name, "1"), "User-Agent", "containerd/v2"); err != nil {
			s.t.Fatal(err)
		}
		return s.linked(img) > 0
	})
	criPull(s.t, s.images, "docker.io/library/"+name+":1")
}

// forget takes all images from the CRI plugin's namespace. containerd then has
// collected its garbage.
func (s *seeded) forget() {
	s.t.Helper()
	if err := s.containerd.Forget(s.t.Context(), "k8s.io"); err != nil {
		s.t.Fatal(err)
	}
}

// exchanges are what containerd asked larder during do.
func (s *seeded) exchanges(do func()) []parts.Exchange {
	before := len(s.node.Exchanges())
	do()
	return s.node.Exchanges()[before:]
}

// wantOneHead checks that containerd's pull during do was one HEAD and no byte.
func (s *seeded) wantOneHead(when string, do func()) {
	s.t.Helper()
	all := s.exchanges(do)
	if len(all) != 1 || all[0].Method != http.MethodHead || all[0].Bytes > 0 {
		s.t.Errorf("%s: got %+v, want one HEAD", when, all)
	}
}

// linked counts the blobs of an image that are one file in both folders.
func (s *seeded) linked(img remotestest.Image) (n int) {
	s.t.Helper()
	for _, d := range img.Descriptors() {
		a, aerr := os.Lstat(filepath.Join(s.content, "blobs", "sha256", d.Digest.Encoded()))
		b, berr := os.Lstat(filepath.Join(s.l.Root(), "blobs", "sha256", d.Digest.Encoded()))
		if aerr == nil && berr == nil && os.SameFile(a, b) {
			n++
		}
	}
	return n
}

// checkContent reads all that containerd has in its database.
func (s *seeded) checkContent(namespace string) (blobs int) {
	s.t.Helper()
	for dgst := range strings.FieldsSeq(ctr(s.t, s.containerd, "-n", namespace, "content", "ls", "-q")) {
		if data := ctr(s.t, s.containerd, "-n", namespace, "content", "get", dgst); digest.FromString(data).String() != dgst {
			s.t.Errorf("%s has other bytes", dgst)
		}
		blobs++
	}
	return blobs
}

// TestSeedWarmPull: with containerd's own content store a warm pull is one HEAD and
// no byte, on all pull paths; there is one copy on disk, containers run, and
// neither containerd's garbage collection nor larder's removals take anything from
// the other.
func TestSeedWarmPull(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]parts.ContainerdOptions{
		"transfer": {}, "local": {LocalPull: true}, oldRelease: {Release: oldRelease},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSeeded(t, o, "")
			img := s.push("app", 900)
			const ref = "docker.io/library/app:1"
			criPull(t, s.images, ref) // cold
			if err := s.upstream.Cut(); err != nil {
				t.Fatal(err)
			}
			s.forget()
			s.await("app", img)
			for i := range 3 {
				s.forget()
				if n := s.linked(img); n > 0 {
					t.Fatalf("containerd forgot the image, and %d links stay", n)
				}
				s.wantOneHead(fmt.Sprintf("warm pull %d", i), func() { criPull(t, s.images, ref) })
			}
			if n, want := s.linked(img), len(img.Descriptors()); n != want {
				t.Errorf("%d of %d blobs are one file", n, want)
			}
			if n := blocksOnce(t, s.content) + blocksOnce(t, s.l.Root()) - blocksOnce(t, s.content, s.l.Root()); n < 5<<20 {
				t.Errorf("%d bytes are shared, want the image", n)
			}
			s.wantOneHead("imagePullPolicy Always", func() { criPull(t, s.images, ref) })
			s.wantOneHead("ctr", func() { ctr(t, s.containerd, pullArgs(ref, s.certs, o.LocalPull || o.Release != "")...) })
			if o.Release == "" { // the shim that is built here is that of 2.x
				if printed, err := s.containerd.RunContainer(t.Context(), ref); err != nil || !strings.Contains(printed, "larder") {
					t.Errorf("a container printed %q, %v, want larder's version", printed, err)
				}
			}

			run(t, s.l, "rm", ref)
			if n := s.linked(img); n > 0 {
				t.Errorf("larder still has %d blobs", n)
			}
			if n, want := s.checkContent("k8s.io"), len(img.Descriptors()); n != want {
				t.Errorf("larder let go of the image, and containerd has %d of %d blobs", n, want)
			}
		})
	}
}

// blocksOnce is what the files in folders take on disk, in bytes, each file once
// whatever its names.
func blocksOnce(t *testing.T, dirs ...string) (total int64) {
	t.Helper()
	seen := map[uint64]bool{}
	for _, dir := range dirs {
		eachFile(t, dir, func(inode uint64, bytes int64) {
			if !seen[inode] {
				seen[inode] = true
				total += bytes
			}
		})
	}
	return total
}

// TestSeedDiscard: with discard_unpacked_layers, too, a pull is one HEAD, and it
// keeps no layers.
func TestSeedDiscard(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dropIn := filepath.Join(dir, "discard.toml")
	if err := os.WriteFile(dropIn, []byte("version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\n  discard_unpacked_layers = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSeeded(t, parts.ContainerdOptions{Imports: []string{dropIn}}, "")
	img := s.push("app", 901)
	const ref = "docker.io/library/app:1"
	criPull(t, s.images, ref)
	for i := range 3 {
		s.forget()
		s.wantOneHead(fmt.Sprintf("warm pull %d", i), func() { criPull(t, s.images, ref) })
		ctr(t, s.containerd, "-n", "k8s.io", "content", "prune", "references")
		if n, want := s.checkContent("k8s.io"), len(img.Descriptors())-3; n != want {
			t.Errorf("containerd has %d blobs, want %d: the layers are not discarded", n, want)
		}
		s.wantOneHead("with imagePullPolicy Always", func() { criPull(t, s.images, ref) })
	}
}

// TestSeedPlatform: of an index containerd is given what it pulls.
func TestSeedPlatform(t *testing.T) {
	t.Parallel()
	s := newSeeded(t, parts.ContainerdOptions{}, "")
	img := s.push("app", 902, "linux/amd64", "linux/arm64/v8")
	const ref = "docker.io/library/app:1"
	run(t, s.l, "pull", "--platform", "all", ref)
	s.wantOneHead("warm pull", func() { criPull(t, s.images, ref) })
	if n := s.linked(img); n != 6 {
		t.Errorf("%d blobs are linked, want index, manifest, config and three layers", n)
	}
}

// TestSeedPart: of an image that is stored in part nothing is linked.
func TestSeedPart(t *testing.T) {
	t.Parallel()
	s := newSeeded(t, parts.ContainerdOptions{}, "")
	img := s.push("app", 903)
	const ref = "docker.io/library/app:1"
	run(t, s.l, "pull", ref)
	if err := os.Remove(filepath.Join(s.l.Root(), "blobs", "sha256", largest(img).Digest.Encoded())); err != nil {
		t.Fatal(err)
	}
	a, err := fetch(t.Context(), http.MethodHead, manifestURL(s.l.URL, "library/app", "1"), "User-Agent", "containerd/v2.4.2")
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("%v, %v", a, err)
	}
	if n := s.linked(img); n > 0 {
		t.Errorf("a layer is missing, and %d blobs are linked", n)
	}
	criPull(t, s.images, ref) // from upstream, and whole
	s.forget()
	s.wantOneHead("whole", func() { criPull(t, s.images, ref) })
}

// TestSeedOtherFileSystem: where nothing can be linked larder says why, once, and
// serves as ever.
func TestSeedOtherFileSystem(t *testing.T) {
	t.Parallel()
	memory, err := os.MkdirTemp("/dev/shm", "lt-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(memory) })
	if err := os.Mkdir(filepath.Join(memory, "ingest"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := newSeeded(t, parts.ContainerdOptions{}, memory)
	s.push("app", 904)
	const why = "are on two file systems"
	eventually(t, "the log says why", func() bool { return strings.Contains(s.l.Log(), why) })
	for range 2 {
		criPull(t, s.images, "docker.io/library/app:1")
		s.forget()
	}
	if n := strings.Count(s.l.Log(), why); n != 1 {
		t.Errorf("the log says %d times why", n)
	}
	if entries, err := os.ReadDir(memory); err != nil || len(entries) != 1 {
		t.Errorf("in the folder: %v, %v", entries, err)
	}
	found, healthy := doctor(t, s.l, s.containerd, s.certs, os.DevNull)
	for _, f := range found {
		if f.Check == "seed" && f.Status == "problem" && strings.Contains(f.Found, why) && !healthy {
			return
		}
	}
	t.Errorf("doctor does not find it: %+v", found)
}

// TestSeedAgainstGC: containerd collects garbage all the time while it pulls and
// forgets images in random order, and larder removes some. Each pull ends right,
// and at the end each has all that it should.
func TestSeedAgainstGC(t *testing.T) {
	t.Parallel()
	s := newSeeded(t, parts.ContainerdOptions{Extra: "[plugins.\"io.containerd.gc.v1.scheduler\"]\n  mutation_threshold = 1\n  schedule_delay = \"0s\"\n  pause_threshold = 0.5\n"}, "")
	const images, pullersOfSeeds = 9, 3
	ref := func(i int) string { return fmt.Sprintf("docker.io/library/app%d:1", i) }
	for i := range images {
		img := remotestest.Build(remotestest.ImageSpec{Seed: 910 + uint64(i), Layers: []int64{300_000, 20_000, 5000}})
		if err := remotestest.Push(t.Context(), s.registry.URL, fmt.Sprintf("library/app%d", i), "1", img); err != nil {
			t.Fatal(err)
		}
		run(t, s.l, "pull", ref(i))
	}
	over := make(chan struct{})
	var collector sync.WaitGroup
	passes := 0
	collector.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				if _, err := s.containerd.Ctr(t.Context(), "content", "prune", "references"); err != nil {
					t.Errorf("garbage collection: %v", err)
					return
				}
				passes++
			}
		}
	})
	// Each has images of its own, so that one removes content while others are
	// between the answer and their look at the links.
	before, rounds := s.node.Total().Requests, count(t, "LARDER_TEST_SEEDS", 90)
	var pullers sync.WaitGroup
	for w := range pullersOfSeeds {
		pullers.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			for range rounds / pullersOfSeeds {
				i := w + pullersOfSeeds*rng.IntN(images/pullersOfSeeds)
				if rng.IntN(2) == 0 {
					if _, err := s.images.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: ref(i)}}); err != nil {
						t.Errorf("remove %s: %v", ref(i), err)
					}
				}
				if rng.IntN(20) == 0 {
					if _, err := s.l.Run(t.Context(), "rm", ref(i)); err != nil && !strings.Contains(err.Error(), "not") {
						t.Errorf("rm: %v", err)
					}
				}
				if _, err := s.images.PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref(i)}}); err != nil {
					t.Errorf("pull of %s: %v", ref(i), err)
				}
			}
		})
	}
	pullers.Wait()
	requests := s.node.Total().Requests - before
	close(over)
	collector.Wait()
	for i := range images {
		criPull(t, s.images, ref(i))
	}
	blobs := s.checkContent("k8s.io")
	if want := images * 5; blobs != want {
		t.Errorf("containerd has %d blobs, want %d", blobs, want)
	}
	out := ctr(t, s.containerd, "-n", "k8s.io", "images", "check")
	if n := strings.Count(out, " complete "); n < images || strings.Contains(out, "incomplete") {
		t.Errorf("images check:\n%s", out)
	}
	verifyStore(t, s.l)
	t.Logf("%d pulls, %d requests beyond their HEADs; %d garbage collections", rounds, requests-rounds, passes)
	if requests > 4*rounds || passes < 3 {
		t.Errorf("%d requests for %d pulls, %d garbage collections: this shows little", requests, rounds, passes)
	}
}
