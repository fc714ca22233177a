package cache

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// putJSON publishes a document and returns its descriptor.
func putJSON(t testing.TB, s *Store, mediaType string, doc any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	dgst := digest.FromBytes(data)
	if err := s.Put(t.Context(), dgst, data, Facts{MediaType: mediaType}); err != nil {
		t.Fatal(err)
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(data))}
}

// putLayered publishes an image of one layer, as one of a repository.
func putLayered(t testing.TB, s *Store, seed uint64, subject *ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	layer, dgst := putBlob(t, s, seed, 100)
	return putJSON(t, s, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config:  ocispec.Descriptor{MediaType: "application/vnd.example.config", Digest: digest.FromString("{}"), Size: 2},
		Layers:  []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: dgst, Size: int64(len(layer))}},
		Subject: subject, Annotations: map[string]string{"seed": fmt.Sprint(seed)},
	})
}

// known is all that an index has, but holders.
type known struct {
	Tags      []Tag
	Links     []Link
	Pins      []Pin
	Referrers map[string][]ocispec.Descriptor
	Types     map[digest.Digest]string
}

func knownOf(t testing.TB, s *Store) known {
	t.Helper()
	tags, terr := s.Tags()
	links, lerr := s.Links()
	pins, perr := s.Pins()
	k := known{tags, links, pins, map[string][]ocispec.Descriptor{}, map[digest.Digest]string{}}
	rerr := s.index.walk(referrersBucket, func(key string, data []byte) error {
		var rf Referrers
		err := json.Unmarshal(data, &rf)
		k.Referrers[key] = rf.Manifests
		return err
	})
	ferr := s.index.walk(blobsBucket, func(key string, data []byte) error {
		k.Types[digest.Digest(key)] = fmt.Sprint(decodeBlob(data).MediaType, decodeBlob(data).Size)
		return nil
	})
	if err := errors.Join(terr, lerr, perr, rerr, ferr); err != nil {
		t.Fatal(err)
	}
	return k
}

// populate makes a store with an index image of two platforms under two tags, a
// digest that was asked for, a signature, and pins.
func populate(t testing.TB, s *Store) {
	t.Helper()
	const repo = "docker.io/library/app"
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a, b := putLayered(t, s, 1, nil), putLayered(t, s, 2, nil)
	root := putJSON(t, s, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{a, b},
	})
	asked := putLayered(t, s, 3, nil)
	sig := putLayered(t, s, 4, &root)
	var errs []error
	for _, desc := range []ocispec.Descriptor{root, a, b} {
		errs = append(errs, s.PutLink(Link{Repository: repo, Digest: desc.Digest, Created: at}))
	}
	full := func(d ocispec.Descriptor) ocispec.Descriptor {
		d.ArtifactType, d.Annotations = "application/vnd.example.config", map[string]string{"seed": "4"}
		return d
	}
	for _, desc := range []ocispec.Descriptor{root, a, b, asked, sig} {
		m, data, _ := s.storedManifest(desc.Digest, desc.MediaType)
		errs = append(errs, s.NoteDescriptors(m.Children()), s.SetFacts(desc.Digest, Facts{Size: int64(len(data))}))
	}
	errs = append(errs,
		s.PutTag(Tag{Name: repo + ":1", Target: root, Source: "https://up.example", Created: at, Moved: at, Validated: at, Gone: true}),
		s.PutTag(Tag{Name: "localhost:5000/x:latest", Target: asked, Created: at, Moved: at.Add(time.Hour)}),
		s.PutLink(Link{Repository: "localhost:5000/x", Digest: asked.Digest, Created: at}),
		s.PutLink(Link{Repository: repo, Digest: asked.Digest, Asked: true, Created: at.Add(time.Minute)}),
		s.PutLink(Link{Repository: repo, Digest: sig.Digest, Companion: true, Created: at}),
		s.ChangeReferrers(repo, root.Digest, func(rf *Referrers) {
			rf.Manifests, rf.Validated = []ocispec.Descriptor{full(sig)}, at
		}),
		s.PutPin(Pin{Name: repo + ":1", Reason: "because", Created: at}),
		s.PutPin(Pin{Name: "docker.io/library/absent:1", Created: at}))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// forgetSources drops what no manifest says.
func forgetSources(k known) known {
	for i := range k.Links { // of children, when they were first seen is not known
		if !k.Links[i].Asked && !k.Links[i].Companion {
			k.Links[i].Created = time.Time{}
		}
	}
	return k
}

// TestRebuild loses the index: tags, digests and pins are there as soon as the
// store is open, and what hangs on them soon after, as it was.
func TestRebuild(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root, quiet())
	populate(t, s)
	want := forgetSources(knownOf(t, s))
	if err := s.PutHolder(want.Links[0].Digest, "docker.io/library/app"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "index.db")); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root, quiet())
	tags, err := s.Tags()
	pins, perr := s.Pins()
	if err := errors.Join(err, perr); err != nil || !reflect.DeepEqual(tags, want.Tags) || !reflect.DeepEqual(pins, want.Pins) {
		t.Errorf("at once: %v, %v, %v, want the tags and pins", tags, pins, err)
	}
	s.healer.wg.Wait()
	got := forgetSources(knownOf(t, s))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("rebuilt:\n%+v\nwant:\n%+v", got, want)
	}
	if holders, err := s.Holders(want.Links[0].Digest); err != nil || len(holders) != 0 {
		t.Errorf("holders: %v, %v, want none: nobody has shown anything", holders, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root, quiet())
	if s.healer.cancel != nil {
		t.Error("what is rebuilt is rebuilt again")
	}
	if s.index.has(stateBucket, newKey) {
		t.Error("the index is still called new")
	}
	if got := forgetSources(knownOf(t, s)); !reflect.DeepEqual(got, want) {
		t.Errorf("after a start:\n%+v\nwant:\n%+v", got, want)
	}
}

// TestRebuildGoesOn has a rebuilding that was interrupted.
func TestRebuildGoesOn(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root, quiet())
	populate(t, s)
	want := forgetSources(knownOf(t, s))
	links, _ := s.Links()
	var errs []error
	for _, l := range links {
		if !l.Asked && !l.Companion {
			errs = append(errs, s.DeleteLink(l.Repository, l.Digest))
		}
		errs = append(errs, s.index.delete(blobsBucket, l.Digest.String()))
	}
	errs = append(errs, s.index.put(stateBucket, rebuildKey, true), s.Close())
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root, quiet())
	s.healer.wg.Wait()
	if got := forgetSources(knownOf(t, s)); !reflect.DeepEqual(got, want) {
		t.Errorf("rebuilt:\n%+v\nwant:\n%+v", got, want)
	}
}

// TestRebuildOfRemains has lost blobs, too, and some that are damaged: the rest
// is found.
func TestRebuildOfRemains(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root, quiet())
	populate(t, s)
	tag, err := s.Tag("docker.io/library/app:1")
	if err != nil {
		t.Fatal(err)
	}
	m, _, _ := s.storedManifest(tag.Target.Digest, "")
	tamper(t, s, m.Manifests[0].Digest, flip(1, 1))
	other, err := s.Tag("localhost:5000/x:latest")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Delete(t.Context(), other.Target.Digest), s.Close(), os.Remove(filepath.Join(root, "index.db"))); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root, quiet())
	s.healer.wg.Wait()
	if tags, err := s.Tags(); err != nil || len(tags) != 2 {
		t.Errorf("tags: %v, %v, want both", tags, err)
	}
	if _, err := s.Link("docker.io/library/app", m.Manifests[1].Digest); err != nil {
		t.Errorf("the platform that is well: %v", err)
	}
	if _, err := s.Link("docker.io/library/app", m.Manifests[0].Digest); err == nil {
		t.Error("the damaged one is linked")
	}
}

// TestRestoreWhileRunning begins the index anew under a store that is open, as
// after a damage that is found then: the snapshot is not written over before it
// is taken over, and what came meanwhile stays.
func TestRestoreWhileRunning(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root, quiet())
	populate(t, s)
	want := forgetSources(knownOf(t, s))
	s.writeSnapshot()
	err := s.index.db.Update(func(tx *bolt.Tx) error {
		var errs []error
		for _, name := range []string{blobsBucket, tagsBucket, manifestsBucket, pinsBucket, holdersBucket, referrersBucket, damageBucket, stateBucket} {
			errs = append(errs, tx.DeleteBucket([]byte(name)))
		}
		return errors.Join(errs...)
	})
	if err := errors.Join(err, makeBuckets(s.index.db.DB)); err != nil {
		t.Fatal(err)
	}
	newer := want.Tags[0]
	newer.Failures = 7
	if err := s.PutTag(newer); err != nil {
		t.Fatal(err)
	}
	want.Tags[0] = newer
	s.writeSnapshot() // refused
	if err := s.restoreIndex(); err != nil {
		t.Fatal(err)
	}
	s.healer.wg.Wait()
	if got := forgetSources(knownOf(t, s)); !reflect.DeepEqual(got, want) {
		t.Errorf("restored:\n%+v\nwant:\n%+v", got, want)
	}
}

// TestSnapshotFollows writes the snapshot a second after a change that counts,
// not for others, and not again and again.
func TestSnapshotFollows(t *testing.T) {
	t.Parallel()
	disk := &renames{Disk: OSDisk(), to: make(chan string, 100)}
	s := openStore(t, t.TempDir(), quiet(), WithDisk(disk))
	<-disk.to // the first one: a new store's
	tag := Tag{Name: "docker.io/library/app:1"}
	tag.Target.Digest = digest.FromString("x")
	if err := s.PutTag(tag); err != nil {
		t.Fatal(err)
	}
	<-disk.to
	found, ours, err := s.readSnapshot()
	if err != nil || !ours || len(found.tags) != 1 {
		t.Errorf("snapshot: %v, %t, %v, want the tag", found, ours, err)
	}
	tag.Validated, tag.Used, tag.Failures = time.Now(), time.Now(), 3
	if err := errors.Join(s.PutTag(tag), s.PutHolder(tag.Target.Digest, "x/y"), s.SetFacts(tag.Target.Digest, Facts{Size: 1})); err != nil {
		t.Fatal(err)
	}
	s.writeSnapshot()
	select {
	case <-disk.to:
		t.Error("a check wrote a snapshot")
	default:
	}
	if err := errors.Join(s.DeleteTag(tag.Name), s.Close()); err != nil {
		t.Fatal(err)
	}
	found, ours, err = s.readSnapshot()
	if err != nil || !ours || len(found.tags) != 0 {
		t.Errorf("snapshot after Close: %v, %t, %v, want it empty", found, ours, err)
	}
}

// renames tells of each snapshot that is written.
type renames struct {
	Disk
	to chan string
}

func (d *renames) Rename(from, to string) error {
	err := d.Disk.Rename(from, to)
	if strings.HasSuffix(to, "index.json") {
		d.to <- to
	}
	return err
}

// TestSnapshotIsLayout is read as any image layout is.
func TestSnapshotIsLayout(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), quiet())
	populate(t, s)
	s.writeSnapshot()
	text, err := os.ReadFile(s.snapshotPath())
	var index ocispec.Index
	if err := errors.Join(err, json.Unmarshal(text, &index)); err != nil {
		t.Fatal(err)
	}
	if index.SchemaVersion != 2 || len(index.Manifests) != 4 {
		t.Errorf("version %d, %d manifests, want 2 and 4", index.SchemaVersion, len(index.Manifests))
	}
	names := map[string]string{}
	for _, desc := range index.Manifests {
		if has, err := s.Has(desc.Digest); !has || err != nil || desc.Size <= 0 || desc.MediaType == "" {
			t.Errorf("descriptor %+v: stored %t, %v", desc, has, err)
		}
		names[desc.Annotations["io.containerd.image.name"]] = desc.Annotations["org.opencontainers.image.ref.name"]
	}
	if names["docker.io/library/app:1"] != "1" || names["localhost:5000/x:latest"] != "latest" {
		t.Errorf("names: %v", names)
	}
}

// TestSnapshotOfOthers keeps the index.json of a layout that becomes a store,
// and takes nothing from it.
func TestSnapshotOfOthers(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	theirs := `{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":"sha256:` + strings.Repeat("a", 64) + `","size":1,` +
		`"annotations":{"io.containerd.image.name":"docker.io/library/x:1"}}]}`
	if err := os.WriteFile(filepath.Join(root, "index.json"), []byte(theirs), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, root, quiet())
	if tags, err := s.Tags(); err != nil || len(tags) != 0 {
		t.Errorf("tags: %v, %v, want none", tags, err)
	}
	if err := errors.Join(s.PutPin(Pin{Name: "x"}), s.Close()); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(root, "index.json.before-larder")); err != nil || string(text) != theirs {
		t.Errorf("theirs: %q, %v, want it kept", text, err)
	}
	// What larder wrote is not kept: neither now, nor as an older one wrote it.
	for form, isOlder := range map[string]bool{"now": false, "older": true} {
		path := filepath.Join(root, "index.json")
		data, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(data), snapshotStart) {
			t.Fatalf("snapshot begins with %.200s, %v, want %s", data, err, snapshotStart)
		}
		if isOlder {
			var index ocispec.Index
			err := json.Unmarshal(data, &index)
			older, merr := json.Marshal(index)
			if err := errors.Join(err, merr, os.WriteFile(path, older, 0o600)); err != nil || strings.HasPrefix(string(older), snapshotStart) {
				t.Fatalf("%.200s, %v", older, err)
			}
		}
		s := openStore(t, root, quiet())
		if err := errors.Join(s.PutPin(Pin{Name: form}), s.Close()); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(path + ".before-larder"); err != nil || string(text) != theirs {
			t.Errorf("%s: kept is %q, %v, want theirs", form, text, err)
		}
	}
}

// TestRebuildIsFast measures, and asks for a tenth of what is aimed at: 10,000
// blobs a second.
func TestRebuildIsFast(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root, quiet(), WithDisk(lazyDisk{OSDisk()}))
	s.index.db.NoSync = true
	const images, layers = 200, 50
	for i := range images {
		m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.DescriptorEmptyJSON}
		for j := range layers {
			m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString(fmt.Sprint(i, " ", j)), Size: 1})
		}
		desc := putJSON(t, s, ocispec.MediaTypeImageManifest, m)
		if err := s.PutTag(Tag{Name: fmt.Sprintf("docker.io/library/app:%d", i), Target: desc}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Close(), os.Remove(filepath.Join(root, "index.db"))); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s = openStore(t, root, quiet())
	opened := time.Since(began)
	s.healer.wg.Wait()
	took := time.Since(began)
	rate := float64(images*(layers+1)) / took.Seconds()
	t.Logf("open took %v, all %v: %.0f blobs a second", opened, took, rate)
	if n := len(knownOf(t, s).Types); n != images*(layers+1)+1 || rate < 1000 {
		t.Errorf("%d blobs, %.0f a second", n, rate)
	}
}

// FuzzSnapshot reads an index.json of any content: what is taken from it is as
// larder writes it.
func FuzzSnapshot(f *testing.F) {
	s, err := Open(f.TempDir(), quiet())
	if err != nil {
		f.Fatal(err)
	}
	populate(f, s)
	var snap bytes.Buffer
	_, err = s.index.writeSnapshot(bufio.NewWriter(&snap))
	if err := errors.Join(err, s.Close()); err != nil {
		f.Fatal(err)
	}
	f.Add(snap.Bytes())
	for _, seed := range []string{"", "{}", "null", `{"annotations":{"io.github.larder-project.pins":"null"}}`, `{"manifests":[{"annotations":null}]}`,
		`{"annotations":{"io.github.larder-project.pins":"{\"x\":{\"name\":\"\"}}"},"manifests":[{"annotations":{"io.containerd.image.name":"x","io.github.larder-project.tag":"{\"name\":\"x\"}"}}]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		found, ours, err := decodeSnapshot(data)
		if n := len(found.tags) + len(found.links) + len(found.pins); n > 0 && (!ours || err != nil) {
			t.Errorf("%d records of what is not ours: %v", n, err)
		}
		for key, record := range found.tags {
			var tag Tag
			if err := json.Unmarshal(record, &tag); err != nil || tag.Name != key || tag.Target.Digest.Validate() != nil {
				t.Errorf("tag %q: %s", key, record)
			}
		}
		for key, record := range found.links {
			var l Link
			if err := json.Unmarshal(record, &l); err != nil || l.key() != key || l.Digest.Validate() != nil {
				t.Errorf("link %q: %s", key, record)
			}
		}
		for key, record := range found.pins {
			if key == "" || !json.Valid(record) {
				t.Errorf("pin %q: %s", key, record)
			}
		}
	})
}
