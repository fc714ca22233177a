package cache

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// TestReferrers: a list belongs to a linked manifest, is kept over a restart,
// and goes with the link.
func TestReferrers(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root)
	const repo = "docker.io/library/app"
	dgst := digest.FromString("x")
	want := Referrers{Repository: repo, Subject: dgst, Validated: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Manifests: []ocispec.Descriptor{{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("sbom"), Size: 7,
		ArtifactType: "application/sbom", Annotations: map[string]string{"a": "b"},
	}}}
	fill := func(rf *Referrers) { rf.Manifests, rf.Validated = want.Manifests, want.Validated }
	if err := s.ChangeReferrers(repo, dgst, fill); !errdefs.IsNotFound(err) {
		t.Errorf("referrers of what is not linked: %v, want not found", err)
	}
	if err := s.PutLink(Link{Repository: repo, Digest: dgst}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Referrers(repo, dgst); !errdefs.IsNotFound(err) {
		t.Errorf("referrers that nobody asked for: %v, want not found", err)
	}
	if err := s.ChangeReferrers(repo, dgst, fill); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root)
	got, err := s.Referrers(repo, dgst)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("after a restart: %v, -want +got:\n%s", err, diff)
	}
	err = s.ChangeReferrers(repo, dgst, func(rf *Referrers) { rf.Followed = want.Validated })
	if got, gerr := s.Referrers(repo, dgst); err != nil || gerr != nil || len(got.Manifests) != 1 || got.Followed.IsZero() {
		t.Errorf("got %+v, %v, %v, want both changes", got, err, gerr)
	}
	if err := s.DeleteLink(repo, dgst); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Referrers(repo, dgst); !errdefs.IsNotFound(err) {
		t.Errorf("referrers without the link: %v, want not found", err)
	}
}

// TestOpenOldIndex opens an index from before there were referrers.
func TestOpenOldIndex(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root)
	if err := s.PutTag(Tag{Name: "docker.io/library/app:1"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(root, "index.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte(referrersBucket)) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root)
	if _, err := s.Tag("docker.io/library/app:1"); err != nil {
		t.Error(err)
	}
	dgst := digest.FromString("x")
	if err := s.PutLink(Link{Repository: "r", Digest: dgst}); err != nil {
		t.Fatal(err)
	}
	if err := s.ChangeReferrers("r", dgst, func(*Referrers) {}); err != nil {
		t.Error(err)
	}
	if err := s.DeleteReferrers("r", dgst); err != nil {
		t.Error(err)
	}
}
