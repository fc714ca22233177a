package cache

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// naive is the same as a graph in plain maps.
type naive struct {
	stored   map[digest.Digest]bool
	children map[digest.Digest][]digest.Digest // companions included
	roots    map[string]digest.Digest
}

// reach collects all that hangs on a digest and is stored.
func (n naive) reach(dgst digest.Digest, into map[digest.Digest]bool) {
	if !n.stored[dgst] || into[dgst] {
		return
	}
	into[dgst] = true
	for _, c := range n.children[dgst] {
		n.reach(c, into)
	}
}

// reachAll is what hangs on all roots but those of one target.
func (n naive) reachAll(except digest.Digest) map[digest.Digest]bool {
	all := map[digest.Digest]bool{}
	for _, target := range n.roots {
		if target != except {
			n.reach(target, all)
		}
	}
	return all
}

// randomStore fills a store with all that can hang on something.
func randomStore(t *testing.T, s *Store, rng *rand.Rand) naive {
	t.Helper()
	n := naive{stored: map[digest.Digest]bool{}, children: map[digest.Digest][]digest.Digest{}, roots: map[string]digest.Digest{}}
	pick := func(from []digest.Digest) digest.Digest { return from[rng.IntN(len(from))] }
	some := func(from []digest.Digest, most int) (all []digest.Digest) {
		for range rng.IntN(most + 1) {
			all = append(all, pick(from))
		}
		return all
	}
	var blobs, manifests []digest.Digest
	for i := range 20 {
		data, dgst := blobOf(uint64(1000+i), 1+rng.IntN(9000))
		if rng.IntN(5) == 0 {
			dgst = digest.SHA512.FromBytes(data)
		}
		blobs = append(blobs, dgst)
		if rng.IntN(6) > 0 {
			n.stored[dgst] = true
			if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	add := func(mediaType string, named []digest.Digest) digest.Digest {
		dgst := putManifest(t, s, fmt.Sprint(rng.Uint64()), mediaType, named...)
		n.stored[dgst], n.children[dgst] = true, named
		for _, repo := range []string{"a.test/x", "b.test/y"} {
			if err := s.PutLink(Link{Repository: repo, Digest: dgst}); err != nil {
				t.Fatal(err)
			}
		}
		manifests = append(manifests, dgst)
		return dgst
	}
	for range 8 {
		add(ocispec.MediaTypeImageManifest, some(blobs, 5))
	}
	for range 4 {
		add(ocispec.MediaTypeImageIndex, some(manifests, 3))
	}
	for i := range 6 {
		name, target := fmt.Sprintf("a.test/x:%d", i), pick(manifests)
		putTag(t, s, name, target, time.Now())
		n.roots[name] = target
	}
	for range 2 {
		l := Link{Repository: "b.test/y", Digest: pick(manifests), Asked: true}
		if err := s.PutLink(l); err != nil {
			t.Fatal(err)
		}
		n.roots[l.key()] = l.Digest
	}
	for range 2 { // a referrer, and a tag of cosign's; both may make circles
		subject, target := pick(manifests), pick(manifests)
		err := s.ChangeReferrers("a.test/x", subject, func(rf *Referrers) { rf.Manifests = append(rf.Manifests, ocispec.Descriptor{Digest: target}) })
		if err != nil {
			t.Fatal(err)
		}
		n.children[subject] = append(slices.Clone(n.children[subject]), target)
		signed, sig := pick(manifests), pick(manifests)
		if signed == sig {
			continue
		}
		name := "b.test/y:sha256-" + signed.Encoded() + ".sig"
		if _, twice := n.roots[name]; !twice {
			putTag(t, s, name, sig, time.Now())
			n.children[signed] = append(slices.Clone(n.children[signed]), sig)
			n.roots[name] = "" // it is a companion
		}
	}
	maps.DeleteFunc(n.roots, func(_ string, target digest.Digest) bool { return target == "" })
	return n
}

// digestsOf are the blobs that images of a graph reach.
func digestsOf(g *graph) map[digest.Digest]bool {
	all := map[digest.Digest]bool{}
	for i, refs := range g.refs {
		if refs > 0 {
			all[g.digestOf(int32(i))] = true
		}
	}
	return all
}

// TestGraphProperty compares the graph with a naive one: what is reached, and
// what each image would leave behind. Half of the stores are an older larder's,
// which recorded nothing of what manifests name.
func TestGraphProperty(t *testing.T) {
	t.Parallel()
	for i := range 40 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir())
			n := randomStore(t, s, rand.New(rand.NewPCG(seed, 0)))
			if i%2 == 0 {
				forget(t, s, childrenBucket)
			}
			if i%4 == 0 { // a manifest is known by who names it alone
				forget(t, s, blobsBucket)
			}
			g, err := s.loadGraph(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(g.keys) != len(n.stored) || len(g.unknown) != 0 {
				t.Errorf("%d blobs, %d unknown, want %d", len(g.keys), len(g.unknown), len(n.stored))
			}
			if got, want := digestsOf(g), n.reachAll(""); !maps.Equal(got, want) {
				t.Fatalf("reached %d blobs, want %d", len(got), len(want))
			}
			for _, img := range g.images {
				target := g.digestOf(img.target)
				want := n.reachAll("")
				for dgst := range n.reachAll(target) {
					delete(want, dgst)
				}
				got := map[digest.Digest]bool{}
				for _, free := range g.drop(img.target) {
					got[g.digestOf(free)] = true
				}
				g.restore(img.target)
				if !maps.Equal(got, want) {
					t.Errorf("without %s %d blobs hang on nothing, want %d", target, len(got), len(want))
				}
			}
			if got, want := digestsOf(g), n.reachAll(""); !maps.Equal(got, want) {
				t.Error("restored is not as before")
			}
		})
	}
}

// forget makes the store one of an older larder.
func forget(t *testing.T, s *Store, bucket string) {
	t.Helper()
	err := s.index.change(func(tx *bolt.Tx) error {
		if err := tx.DeleteBucket([]byte(bucket)); err != nil {
			return err
		}
		_, err := tx.CreateBucket([]byte(bucket))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestGraphUnreadableManifest: of an older larder's manifest that has lost its
// bytes nobody can tell what it needs.
func TestGraphUnreadableManifest(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), WithClock(func() time.Time { return time.Now().Add(24 * time.Hour) }))
	img := putImage(t, s, "1", time.Now(), 1, 2)
	forget(t, s, childrenBucket)
	path, err := s.blobPath(img.root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.PutPin(Pin{Name: img.name}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collect(t.Context(), CollectOptions{To: 0}); err != nil {
		t.Fatal(err)
	}
	for _, dgst := range img.layers {
		if has, err := s.Has(dgst); !has || err != nil {
			t.Errorf("a layer of the pinned image is gone: %v", err)
		}
	}
}
