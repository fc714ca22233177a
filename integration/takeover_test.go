package integration

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// taken is a node with the containerd that has its content here or there.
type taken struct {
	*switchable
	containerd *parts.Containerd
}

// stop ends containerd, and larder.
func (n *taken) stop() {
	n.t.Helper()
	if err := n.containerd.Close(); err != nil {
		n.t.Fatal(err)
	}
	if err := n.l.Close(); err != nil {
		n.t.Fatal(err)
	}
}

// start starts larder, runs larder setup containerd, and starts containerd.
func (n *taken) start(setup ...string) {
	n.t.Helper()
	if err := n.l.Start(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.setup(setup...); err != nil {
		n.t.Fatal(err)
	}
	n.containerd = n.containerdWith(n.options)
}

// verb runs a verb with containerd's root.
func (n *taken) verb(name string) string {
	n.t.Helper()
	return run(n.t, n.l, name, "--containerd-root", filepath.Join(n.dir, "containerd", "root"))
}

// kill kills a verb at some moments, which differ from run to run; what must hold does not.
func (n *taken) kill(name string) {
	n.t.Helper()
	for after := 4 * time.Millisecond; after < 200*time.Millisecond; after *= 2 {
		ctx, cancel := context.WithTimeout(n.t.Context(), after) // its end is a SIGKILL
		_, err := n.l.Run(ctx, name, "--containerd-root", filepath.Join(n.dir, "containerd", "root"))
		cancel()
		n.t.Logf("%s, killed after %s: %v", name, after, err)
	}
}

// files are the inodes of the blobs in a folder.
func (n *taken) files(folder ...string) map[string]uint64 {
	n.t.Helper()
	all := map[string]uint64{}
	paths, err := filepath.Glob(filepath.Join(n.dir, filepath.Join(folder...), "blobs", "sha256", "*"))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, path := range paths {
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			n.t.Fatal(err)
		}
		all[filepath.Base(path)] = st.Ino
	}
	return all
}

func (n *taken) theirs() map[string]uint64 {
	return n.files("containerd", "root", "io.containerd.content.v1.content")
}

func (n *taken) ours() map[string]uint64 { return n.files("larder", "store") }

// wantAll checks that containerd has these images, content and all, and runs them, while no registry answers.
func (n *taken) wantAll(content []string, refs ...string) {
	n.t.Helper()
	asked := len(n.host.Requests())
	heal := n.host.Fault(remotestest.Any(), remotestest.Error(http.StatusServiceUnavailable, "UNAVAILABLE", "down"))
	defer heal()
	if got := n.content(); !slices.Equal(got, content) {
		n.t.Errorf("containerd has content %v, want %v", got, content)
	}
	for _, dgst := range content {
		data, err := n.containerd.Ctr(n.t.Context(), "content", "get", dgst)
		if err != nil || digest.FromString(data).String() != dgst {
			n.t.Errorf("content %s: %v", dgst, err)
		}
	}
	for _, ref := range refs {
		if out := ctr(n.t, n.containerd, "images", "check", "name=="+ref); !strings.Contains(out, "complete") {
			n.t.Errorf("images check: %s", out)
		}
		if n.options.Release != "" { // its shim is not among the programs that are built
			continue
		}
		if out, err := n.containerd.RunContainer(n.t.Context(), ref); err != nil || !strings.Contains(out, "larder") {
			n.t.Errorf("a container of %s printed %q, %v", ref, out, err)
		}
	}
	if got := len(n.host.Requests()); got != asked {
		n.t.Errorf("the registry was asked %d times", got-asked)
	}
}

// content is what containerd has in its database.
func (n *taken) content() []string {
	n.t.Helper()
	all := strings.Fields(ctr(n.t, n.containerd, "content", "ls", "-q"))
	slices.Sort(all)
	return all
}

func (n *taken) pull(ref string) {
	n.t.Helper()
	ctr(n.t, n.containerd, pullArgs(ref, n.options.CertsDir, n.options.Release == "")...)
}

// A blob that is damaged is not taken over; its image is named, and can be had again as larder says.
func TestAdoptDamaged(t *testing.T) {
	t.Parallel()
	n := &taken{switchable: newSwitchable(t, "", `"content", "diff"`)}
	n.containerd = n.containerdWith(n.options)
	n.pull(n.ref)
	n.pull(n.other)
	content := n.content()
	n.stop()
	// The largest blob that the images do not share.
	var bad string
	var size int64
	for hex := range n.theirs() {
		fi, err := os.Stat(n.theirBlob(hex))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Size() > size && fi.Size() < 3<<20 {
			bad, size = hex, fi.Size()
		}
	}
	if err := os.WriteFile(n.theirBlob(bad), make([]byte, size), 0o444); err != nil { // which root may
		t.Fatal(err)
	}
	out, err := n.l.Run(t.Context(), "adopt", "--containerd-root", filepath.Join(n.dir, "containerd", "root"))
	needed := n.ref
	if !strings.Contains(out, "needed by "+needed) {
		needed = n.other
	}
	if err == nil || !strings.Contains(out, bad) || !strings.Contains(out, "needed by "+needed) {
		t.Fatalf("adopt: %v, %s", err, out)
	}

	n.start("--mode", "proxy")
	ctr(t, n.containerd, "images", "rm", "--sync", needed)
	n.pull(needed)
	n.wantAll(content, n.ref, n.other)
}

func (n *taken) theirBlob(hex string) string {
	return filepath.Join(n.dir, "containerd", "root", "io.containerd.content.v1.content", "blobs", "sha256", hex)
}

// What containerd has stored is in larder's store without a copy, and everything is there as before; and the same on
// the way back, with what was pulled meanwhile.
func TestAdoptAndEject(t *testing.T) {
	t.Parallel()
	for name, release := range releases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := &taken{switchable: newSwitchable(t, release, `"content", "diff"`)}
			// Past larder at first, so that the store has nothing of it.
			n.containerd = n.containerdWith(n.options)
			n.pull(n.ref)
			content, before := n.content(), n.theirs()
			if _, err := n.l.Run(t.Context(), "adopt", "--containerd-root", filepath.Join(n.dir, "containerd", "root")); err == nil || !strings.Contains(err.Error(), "stop it first") {
				t.Errorf("adopt while containerd runs: %v", err)
			}
			if err := n.containerd.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := n.l.Run(t.Context(), "adopt", "--containerd-root", filepath.Join(n.dir, "containerd", "root")); err == nil || !strings.Contains(err.Error(), "stop larder first") {
				t.Errorf("adopt while larder runs: %v", err)
			}
			if err := n.l.Close(); err != nil {
				t.Fatal(err)
			}
			n.kill("adopt")
			if out := n.verb("adopt"); !strings.Contains(out, "took over") {
				t.Errorf("adopt: %s", out)
			}
			if left := n.theirs(); len(left) > 0 {
				t.Errorf("left in containerd's folder: %v", left)
			}
			ours := n.ours()
			for dgst, inode := range before {
				if ours[dgst] != inode {
					t.Errorf("%s has inode %d, had %d", dgst, ours[dgst], inode)
				}
			}

			n.start("--mode", "proxy")
			n.wantAll(content, n.ref)
			n.pull(n.other)
			content, ours = n.content(), n.ours()
			n.wantAll(content, n.ref, n.other)

			n.stop()
			n.kill("eject")
			if out := n.verb("eject"); !strings.Contains(out, "handed back") {
				t.Errorf("eject: %s", out)
			}
			theirs := n.theirs()
			for _, dgst := range content {
				hex := strings.TrimPrefix(dgst, "sha256:")
				if theirs[hex] == 0 || theirs[hex] != ours[hex] {
					t.Errorf("%s has inode %d, had %d", dgst, theirs[hex], ours[hex])
				}
			}
			n.start("--undo")
			n.wantAll(content, n.ref, n.other)
			if err := n.containerd.Forget(t.Context(), "default"); err != nil {
				t.Error(err)
			}
			if left := n.theirs(); len(left) > 0 {
				t.Errorf("containerd has collected its garbage, and left %v", left)
			}
		})
	}
}
