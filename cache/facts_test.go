package cache

import (
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestFactsMerge shows which fact wins.
func TestFactsMerge(t *testing.T) {
	t.Parallel()
	old, now := time.Unix(1e9, 0).UTC(), time.Unix(2e9, 0).UTC()
	for name, tc := range map[string]struct{ known, learnt, want Facts }{
		"nothing":         {},
		"all new":         {Facts{}, Facts{Size: 1, MediaType: "a", Source: "s", Updated: now, Used: now}, Facts{Size: 1, MediaType: "a", Source: "s", Updated: now, Used: now}},
		"first stays":     {Facts{Size: 1, MediaType: "a"}, Facts{Size: 2, MediaType: "b"}, Facts{Size: 1, MediaType: "a"}},
		"last source":     {Facts{Source: "a"}, Facts{Source: "b"}, Facts{Source: "b"}},
		"no source":       {Facts{Source: "a"}, Facts{}, Facts{Source: "a"}},
		"later times":     {Facts{Updated: old, Used: now}, Facts{Updated: now, Used: old}, Facts{Updated: now, Used: now}},
		"labels together": {Facts{Labels: map[string]string{"a": "1", "b": "1"}}, Facts{Labels: map[string]string{"b": "2", "c": "2"}}, Facts{Labels: map[string]string{"a": "1", "b": "2", "c": "2"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir())
			dgst := digest.FromString("x")
			for range 2 { // it may be told twice
				if err := s.SetFacts(dgst, tc.known); err != nil {
					t.Fatal(err)
				}
				if err := s.SetFacts(dgst, tc.learnt); err != nil {
					t.Fatal(err)
				}
				if name == "last source" {
					break
				}
			}
			got, err := s.Facts(dgst)
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("%v, -want +got:\n%s", err, diff)
			}
		})
	}
}

// TestNoteDescriptors has a hostile manifest make claims of others' blobs.
func TestNoteDescriptors(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 1000)
	layer := digest.FromString("layer")
	err := s.NoteDescriptors([]ocispec.Descriptor{
		{Digest: "", Size: 1},
		{Digest: "sha256:../../x", Size: 1},
		{Digest: layer, Size: -5, MediaType: "layer"},
		{Digest: dgst, Size: 7, MediaType: "claimed"},
		{Digest: dgst, Size: 8, MediaType: "claimed again"},
	})
	if err != nil {
		t.Errorf("note: %v", err)
	}
	if got, err := s.Facts(dgst); err != nil || got.Size != 7 || got.MediaType != "claimed" {
		t.Errorf("claims: %+v, %v, want the first", got, err)
	}
	if got, err := s.Facts(layer); err != nil || got.Size != 0 || got.MediaType != "layer" {
		t.Errorf("claims: %+v, %v, want no size", got, err)
	}
	if _, err := s.Facts("sha256:../../x"); !errdefs.IsNotFound(err) {
		t.Errorf("facts of a bad digest: %v, want not found", err)
	}
	if err := s.Put(t.Context(), dgst, data, Facts{MediaType: "true", Source: "s"}); err != nil {
		t.Fatal(err)
	}
	want := Facts{Size: 1000, MediaType: "true", Source: "s"}
	if got, err := s.Facts(dgst); err != nil || !cmp.Equal(got, want) || !got.IsMeasured() {
		t.Errorf("facts: %+v, %v, want %+v", got, err, want)
	}
	// Once published it does not change type.
	if err := s.Put(t.Context(), dgst, data, Facts{MediaType: "later"}); err != nil {
		t.Fatal(err)
	}
	if err := s.NoteDescriptors([]ocispec.Descriptor{{Digest: dgst, Size: 9, MediaType: "later"}}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Facts(dgst); err != nil || !cmp.Equal(got, want) {
		t.Errorf("facts: %+v, %v, want %+v", got, err, want)
	}
}

// TestPut goes through what Put refuses and heals.
func TestPut(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 1000)
	if err := s.Put(t.Context(), dgst, data[1:], Facts{}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("put of wrong bytes: %v, want failed precondition", err)
	}
	if err := s.Put(t.Context(), "garbage", data, Facts{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("put of no digest: %v, want invalid argument", err)
	}
	wantNoBlob(t, s, dgst)
	wantNoIngests(t, s)
	errs := make(chan error)
	for range 20 {
		go func() { errs <- s.Put(t.Context(), dgst, data, Facts{MediaType: "x"}) }()
	}
	for range 20 {
		if err := <-errs; err != nil {
			t.Errorf("one of 20 puts: %v", err)
		}
	}
	wantBlob(t, s, dgst, data)
	wantNoIngests(t, s)
	// A crash between publish and index leaves a blob without facts.
	if err := s.index.delete(blobsBucket, dgst.String()); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), dgst, data, Facts{MediaType: "x"}); err != nil {
		t.Error(err)
	}
	if got, err := s.Facts(dgst); err != nil || got.MediaType != "x" || got.Size != 1000 {
		t.Errorf("facts: %+v, %v, want them noted", got, err)
	}
	empty := digest.FromBytes(nil)
	if err := s.Put(t.Context(), empty, nil, Facts{}); err != nil {
		t.Error(err)
	}
	wantBlob(t, s, empty, nil)
}

// TestUpdate changes labels as containerd's store does.
func TestUpdate(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		labels map[string]string
		paths  []string
		want   map[string]string
	}{
		"replace all":      {map[string]string{"b": "2"}, nil, map[string]string{"b": "2"}},
		"replace by path":  {map[string]string{"b": "2"}, []string{"labels"}, map[string]string{"b": "2"}},
		"add one":          {map[string]string{"b": "2", "c": "3"}, []string{"labels.b"}, map[string]string{"a": "1", "b": "2"}},
		"remove one":       {map[string]string{"a": ""}, []string{"labels.a"}, map[string]string{}},
		"dots in the name": {map[string]string{"x.y/z.w": "1"}, []string{"labels.x.y/z.w"}, map[string]string{"a": "1", "x.y/z.w": "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir())
			data, dgst := blobOf(1, 10)
			if err := s.Put(t.Context(), dgst, data, Facts{Labels: map[string]string{"a": "1"}}); err != nil {
				t.Fatal(err)
			}
			before := time.Now()
			info, err := s.Update(t.Context(), content.Info{Digest: dgst, Labels: tc.labels}, tc.paths...)
			if err != nil || len(info.Labels) != len(tc.want) || len(tc.want) > 0 && !cmp.Equal(info.Labels, tc.want) {
				t.Errorf("labels: %v, %v, want %v", info.Labels, err, tc.want)
			}
			if info.UpdatedAt.Before(before.Round(0)) {
				t.Errorf("updated at %v, want after %v", info.UpdatedAt, before)
			}
			if _, err := s.Update(t.Context(), content.Info{Digest: dgst}, "size"); !errdefs.IsInvalidArgument(err) {
				t.Errorf("update of the size: %v, want invalid argument", err)
			}
		})
	}
}
