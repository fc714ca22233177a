package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/plugin/unpack/unpacktest"
)

// memory is a layer in memory.
type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

func (m memory) ReaderAt(context.Context, ocispec.Descriptor) (content.ReaderAt, error) {
	return m, nil
}

// choices are bytes that say what a random layer has, and the names in it so far.
type choices struct {
	left  []byte
	dirs  []string
	files []string
}

func (c *choices) below(n int) int {
	if len(c.left) == 0 {
		return 0
	}
	b := c.left[0]
	c.left = c.left[1:]
	return int(b) % n
}

func (c *choices) of(names []string) string {
	if len(names) == 0 {
		return "a"
	}
	return names[c.below(len(names))]
}

// name is one of few, so that entries often meet; now and then where something else
// is, or is not.
func (c *choices) name(letters string) string {
	if c.below(150) == 0 {
		return filepath.Join(c.of(append(c.files, "new/er")), "f")
	}
	if c.below(100) == 0 {
		letters = "abcfgh"
	}
	return filepath.Join(c.of(append(c.dirs, "")), string(letters[c.below(len(letters))]))
}

// entry is the next entry.
func (c *choices) entry(n int) (tar.Header, []byte) {
	hdr := tar.Header{
		Name: c.name("fghij"), Typeflag: tar.TypeReg, Mode: 0o600 + int64(c.below(64)), Uid: c.below(3), Format: tar.FormatPAX,
		ModTime: time.Unix(1_600_000_000+int64(n), 5),
	}
	var body []byte
	switch c.below(26) {
	case 24: // of a folder that may have files by now
		hdr.Name, hdr.Typeflag = c.of(c.dirs), tar.TypeDir
		hdr.PAXRecords = map[string]string{"SCHILY.xattr.system.posix_acl_default": defaultACL}
	case 25:
		return tar.Header{Name: hdr.Name, Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": fmt.Sprint(n)}}, nil
	case 0, 1, 2, 3, 4, 5:
		hdr.Name, hdr.Typeflag = c.name("abc"), tar.TypeDir
		c.dirs = append(c.dirs, hdr.Name)
		if c.below(4) == 0 {
			hdr.PAXRecords = map[string]string{"SCHILY.xattr.user.n": fmt.Sprint(n)}
		}
	case 6:
		hdr.Name, hdr.Typeflag, hdr.Linkname = c.name("de"), tar.TypeSymlink, []string{"/", "/", "../", ""}[c.below(4)]+c.of(c.dirs)
		c.dirs = append(c.dirs, hdr.Name)
	case 7, 8:
		hdr.Typeflag, hdr.Linkname = tar.TypeLink, c.of(c.files)
		switch c.below(40) {
		case 0:
			hdr.Linkname += "/"
		case 1:
			hdr.Linkname = c.of(c.dirs) + "/../" + filepath.Base(hdr.Linkname)
		}
	case 9:
		hdr.Typeflag = tar.TypeFifo
	case 10:
		hdr.Name = filepath.Join(c.of(c.dirs), whiteout+string("mno"[c.below(3)]))
	case 11:
		hdr.Name = filepath.Join(c.of(c.dirs), ".wh..wh..opq")
	default:
		c.files = append(c.files, hdr.Name)
		hdr.Name = []string{"", "", "./", "/", "x/../"}[c.below(5)] + hdr.Name
		body = bytes.Repeat([]byte{byte(n)}, []int{0, 1, 511, 512, 5000, 70_000, 1_000_000}[c.below(7)])
	}
	hdr.Size = int64(len(body))
	return hdr, body
}

// randomLayer is a tar stream made of choices.
func randomLayer(t testing.TB, c *choices) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for n := 0; len(c.left) > 0; n++ {
		hdr, body := c.entry(n)
		if err := w.WriteHeader(&hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// mountsBelow are the mounts of an overlay over a folder that has some files, or of a
// base layer.
func mountsBelow(t testing.TB, dir string, base bool) (mounts []mount.Mount, root string) {
	t.Helper()
	root = filepath.Join(dir, "upper")
	for path, mode := range map[string]os.FileMode{"upper": 0o755, "lower/a": 0o711, "lower/a/b": 0o2775, "lower/c": 0o700} {
		if err := os.MkdirAll(filepath.Join(dir, path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, path), mode&os.ModePerm); err != nil {
			t.Fatal(err)
		}
	}
	if base {
		return []mount.Mount{{Type: "bind", Source: root, Options: []string{"rw", "rbind"}}}, root
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"workdir=" + filepath.Join(dir, "work"), "upperdir=" + root, "lowerdir=" + filepath.Join(dir, "lower"),
	}}}, root
}

// sameAsContainerd unpacks a layer with containerd's differ, and dealt out.
func sameAsContainerd(t testing.TB, layer []byte, base bool) (dealt bool) {
	t.Helper()
	blob := memory{bytes.NewReader(layer)}
	mounts, theirs := mountsBelow(t, t.TempDir(), base)
	want, theirErr := apply.NewFileSystemApplier(blob).Apply(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, mounts)
	mounts, ours := mountsBelow(t, t.TempDir(), base)
	u := unpacking{layer: blob, sides: 3}
	ourErr := u.apply(t.Context(), mounts, false)
	if (ourErr == nil) != (theirErr == nil) {
		t.Fatalf("got %v, containerd %v", ourErr, theirErr)
	}
	if theirErr != nil {
		t.Log(theirErr)
		return false
	}
	if u.applied.Digest != want.Digest || u.applied.Size != want.Size || u.applied.MediaType != want.MediaType {
		t.Errorf("applied %+v, containerd %+v", u.applied, want)
	}
	if diff := unpacktest.Diff(unpacktest.Files(t, ours), unpacktest.Files(t, theirs)); diff != "" {
		t.Error(diff)
	}
	return true
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: unpacking; owners and devices need root")
	}
}

// TestDeal unpacks random layers, in which names meet in all ways: the files are as
// containerd has them.
func TestDeal(t *testing.T) {
	t.Parallel()
	needRoot(t)
	const layers = 150
	whole := 0
	for seed := range uint64(layers) {
		rng := rand.New(rand.NewPCG(seed, 1))
		c := &choices{left: make([]byte, 20+rng.IntN(200))}
		for i := range c.left {
			c.left[i] = byte(rng.Uint32())
		}
		layer := randomLayer(t, c)
		if sameAsContainerd(t, layer, seed%2 == 0) {
			whole++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d of %d layers could be unpacked", whole, layers)
	if whole < layers/8 {
		t.Error("too few: this shows little")
	}
}

// FuzzDeal is TestDeal with layers of the fuzzer's.
func FuzzDeal(f *testing.F) {
	f.Add([]byte("a layer is made of these bytes"))
	f.Fuzz(func(t *testing.T, data []byte) {
		needRoot(t)
		if len(data) > 300 {
			return
		}
		sameAsContainerd(t, randomLayer(t, &choices{left: data}), len(data)%2 == 0)
	})
}

// TestDealInOrder unpacks layers in which an entry must wait for a large file that
// was dealt before it.
func TestDealInOrder(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir} }
	large := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 3 << 20} }
	small := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 5} }
	link := func(name, to string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to} }
	symlink := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	for name, entries := range map[string][]tar.Header{
		"twice":                          {large("f"), small("f")},
		"a link to it":                   {large("f"), link("g", "f")},
		"a link to it by another path":   {dir("d"), large("d/f"), symlink("s", "d"), link("g", "s/f")},
		"a link that it is written over": {small("f"), link("g", "f"), large("f")},
		"a device in its place":          {large("f"), {Name: "f", Typeflag: tar.TypeFifo}},
		"a link in its place":            {large("f"), symlink("f", "g"), small("g")},
		"a folder in its place":          {large("f"), dir("f"), small("f/g")},
		"by another path":                {dir("d"), symlink("s", "d"), small("s/x"), large("d/f"), small("s/f")},
		"by a link in a folder's place":  {dir("d"), dir("d/e"), dir("z"), dir("z/e"), symlink("d", "z"), large("z/e/f"), small("d/e/f")},
		"by a link to a link":            {dir("d"), symlink("s", "d"), link("l", "s"), small("l/x"), large("d/f"), small("l/f")},
		"in a folder that goes":          {dir("d"), large("d/f"), small("d"), small("e")},
		"in a folder that comes":         {large("d/e/f"), dir("d/e"), dir("d"), small("d/e/g")},
		"in a folder of below":           {large("a/b/f"), small("a/b/g"), large("c/f"), dir("a/b"), small("c/g")},
		"in a folder that is hidden":     {dir("d"), large("d/f"), {Name: "d/.wh..wh..opq", Typeflag: tar.TypeReg}, small("d/g")},
		"hidden":                         {large("f"), {Name: ".wh.g", Typeflag: tar.TypeReg}, small("h")},
		"with a folder's time":           {dir("d"), small("d/e"), large("d/f")},
	} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for i, hdr := range entries {
			hdr.Mode, hdr.Uid, hdr.ModTime = 0o640+int64(i), i, time.Unix(1_600_000_000+int64(i), 0)
			if err := w.WriteHeader(&hdr); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(bytes.Repeat([]byte{byte('a' + i)}, int(hdr.Size))); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for round := range 6 {
				if !sameAsContainerd(t, buf.Bytes(), round%2 == 0) {
					t.Fatal("containerd does not take it")
				}
			}
		})
	}
}

// orderlyLayer is one as they mostly are: folders before what is in them.
func orderlyLayer(t testing.TB, folders, files int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(hdr tar.Header, body []byte) {
		hdr.Size, hdr.Mode, hdr.ModTime, hdr.Format = int64(len(body)), 0o755, time.Unix(1_600_000_000, 7), tar.FormatPAX
		if err := w.WriteHeader(&hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	for i := range folders {
		dir := fmt.Sprintf("d%d", i)
		add(tar.Header{Name: dir + "/", Typeflag: tar.TypeDir}, nil)
		for j := range files {
			add(tar.Header{Name: fmt.Sprintf("%s/f%d", dir, j), Typeflag: tar.TypeReg}, bytes.Repeat([]byte{byte(j)}, 1+j*j*97%20_000))
		}
		add(tar.Header{Name: dir + "/link", Linkname: dir + "/f0", Typeflag: tar.TypeLink}, nil)
		add(tar.Header{Name: dir + "/sym", Linkname: "f1", Typeflag: tar.TypeSymlink}, nil)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// layerOfOne is an archive of one file, that goes on behind it.
func layerOfOne(t testing.TB, name string, body []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestDealIsUsed: a layer as they mostly are is dealt out to all.
func TestDealIsUsed(t *testing.T) {
	t.Parallel()
	needRoot(t)
	layer := orderlyLayer(t, 10, 40)
	sameAsContainerd(t, layer, true)
	sameAsContainerd(t, layer, false)
	s := newStream(t.Context(), io.NopCloser(bytes.NewReader(layer)))
	ctx, cancel := context.WithCancelCause(t.Context())
	table := newTable(cancel)
	d := &dealer{tape: tape{ctx: ctx, in: s}, table: table, spine: table.spine, sides: []*hand{table.newHand(), table.newHand()}, ledger: newLedger()}
	var hands sync.WaitGroup
	for _, h := range append(d.sides, d.spine) {
		hands.Go(func() {
			for h.now = range h.queue {
				h.finish()
			}
		})
	}
	if err := d.run(); err != nil {
		t.Fatal(err)
	}
	for _, h := range append(d.sides, d.spine) {
		close(h.queue)
	}
	hands.Wait()
	if d.sides[0].dealt+d.sides[1].dealt != 10*40 || d.spine.dealt != 10*3 {
		t.Errorf("dealt %d, %d, and %d to the spine", d.sides[0].dealt, d.sides[1].dealt, d.spine.dealt)
	}
	d.tape.close()
	if err := errors.Join(s.rest(ctx), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s.digest != digest.FromBytes(layer) {
		t.Errorf("digest %s", s.digest)
	}
	if n := len(s.free); n != chunks {
		t.Errorf("%d of %d chunks came back", n, chunks)
	}
}

// TestIdlest: who has least to do gets the next file.
func TestIdlest(t *testing.T) {
	t.Parallel()
	table := newTable(func(error) {})
	d := &dealer{table: table, sides: []*hand{table.newHand(), table.newHand(), table.newHand()}}
	for i, load := range []int64{300, 100, 200} {
		d.sides[i].load.Store(load)
	}
	if d.idlest() != d.sides[1] {
		t.Error("it is another one")
	}
}
