package remotes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// descriptor as JSON, with this size and digest.
func descriptorJSON(dgst string, size int64) string {
	return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}`, dgst, size)
}

// A document that can be read as two things is refused (CVE-2021-41190).
func TestAmbiguousManifest(t *testing.T) {
	t.Parallel()
	layer := descriptorJSON(emptyDigest.String(), 0)
	const index, manifest = ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest
	for name, c := range map[string]struct{ doc, contentType string }{
		"both":                    {`{"schemaVersion":2,"manifests":[` + layer + `],"layers":[` + layer + `]}`, ""},
		"both, empty":             {`{"schemaVersion":2,"manifests":[],"layers":[]}`, ""},
		"index with a config":     {`{"schemaVersion":2,"manifests":[],"config":` + layer + `}`, index},
		"type against content":    {`{"schemaVersion":2,"mediaType":"` + index + `","layers":[` + layer + `]}`, ""},
		"content against type":    {`{"schemaVersion":2,"mediaType":"` + manifest + `","manifests":[` + layer + `]}`, ""},
		"type against header":     {`{"schemaVersion":2,"mediaType":"` + manifest + `","layers":[]}`, index},
		"same family, not same":   {`{"schemaVersion":2,"mediaType":"` + manifest + `","layers":[]}`, remotestest.MediaTypeDockerManifest},
		"header against content":  {`{"schemaVersion":2,"layers":[]}`, index},
		"neither, called index":   {`{"schemaVersion":2}`, index},
		"no image":                {`{"schemaVersion":2,"mediaType":"application/json"}`, ""},
		"schema 1":                {`{"schemaVersion":1,"fsLayers":[]}`, ""},
		"schema 2 with fsLayers":  {`{"schemaVersion":2,"fsLayers":[],"layers":[]}`, ""},
		"no version":              {`{"layers":[]}`, ""},
		"not JSON":                {`<html>`, manifest},
		"empty":                   {``, manifest},
		"two documents":           {`{"schemaVersion":2,"layers":[]}{"schemaVersion":2,"manifests":[]}`, ""},
		"an array":                {`[]`, ""},
		"null":                    {`null`, ""},
		"deep":                    {strings.Repeat("[", 100_000), ""},
		"negative size":           {`{"schemaVersion":2,"layers":[` + descriptorJSON(emptyDigest.String(), -1) + `]}`, ""},
		"digest is a path":        {`{"schemaVersion":2,"layers":[` + descriptorJSON("sha256:../../../etc/passwd", 1) + `]}`, ""},
		"digest of no algorithm":  {`{"schemaVersion":2,"manifests":[` + descriptorJSON("md5:d41d8cd98f00b204e9800998ecf8427e", 1) + `]}`, ""},
		"config without a digest": {`{"schemaVersion":2,"config":{"size":3},"layers":[]}`, ""},
		"too many children":       {`{"schemaVersion":2,"layers":[` + strings.Repeat(layer+",", cache.MaxChildren) + layer + `]}`, ""},
	} {
		if m, err := cache.ParseManifest([]byte(c.doc), c.contentType); !errdefs.IsDataLoss(err) {
			t.Errorf("%s: got %v, %v, want it refused as errdefs.ErrDataLoss", name, m.MediaType, err)
		} else if len(err.Error()) > 1000 {
			t.Errorf("%s: error of %d bytes", name, len(err.Error()))
		}
	}
}

func TestParseManifest(t *testing.T) {
	t.Parallel()
	layer := descriptorJSON(emptyDigest.String(), 1<<62) // a lie, but not ours to judge: nothing is allocated by it
	for name, c := range map[string]struct {
		doc, contentType, want string
		children               int
	}{
		"by itself":         {`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":` + layer + `,"layers":[` + layer + `]}`, "", ocispec.MediaTypeImageManifest, 2},
		"by header":         {`{"schemaVersion":2,"layers":[` + layer + `]}`, remotestest.MediaTypeDockerManifest, remotestest.MediaTypeDockerManifest, 1},
		"by look, manifest": {`{"schemaVersion":2,"layers":[]}`, "", ocispec.MediaTypeImageManifest, 0},
		"by look, index":    {`{"schemaVersion":2,"manifests":[` + layer + `]}`, "application/json", ocispec.MediaTypeImageIndex, 1},
		"header says less":  {`{"schemaVersion":2,"mediaType":"` + remotestest.MediaTypeDockerList + `","manifests":[]}`, "text/plain", remotestest.MediaTypeDockerList, 0},
		"most children":     {`{"schemaVersion":2,"layers":[` + strings.Repeat(layer+",", cache.MaxChildren-1) + layer + `]}`, "", ocispec.MediaTypeImageManifest, cache.MaxChildren},
	} {
		m, err := cache.ParseManifest([]byte(c.doc), c.contentType)
		if err != nil || m.MediaType != c.want || len(m.Children()) != c.children {
			t.Errorf("%s: got %s with %d children, %v, want %s with %d", name, m.MediaType, len(m.Children()), err, c.want, c.children)
		}
	}
}

// Through the whole path: an ambiguous manifest reaches neither client nor
// store.
func TestAmbiguousManifestIsNotStored(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	both := []byte(`{"schemaVersion":2,"manifests":[],"layers":[]}`)
	up.PutManifest("library/app", "both", ocispec.MediaTypeImageIndex, both)
	up.PutManifest("library/app", "flip", ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"layers":[]}`))
	big := fmt.Appendf(nil, `{"schemaVersion":2,"layers":[],"annotations":{"a":%q}}`, bytes.Repeat([]byte("x"), 5<<20))
	up.PutManifest("library/app", "big", ocispec.MediaTypeImageManifest, big)
	b := newBench(t, []*remotestest.Registry{up})
	for tag, data := range map[string][]byte{"both": both, "flip": []byte(`{"schemaVersion":2,"layers":[]}`), "big": big} {
		for _, object := range []string{tag, digest.FromBytes(data).String()} {
			if _, err := b.Manifest(soon(t), app(t, object)); !errdefs.IsDataLoss(err) {
				t.Errorf("%s: got %v, want errdefs.ErrDataLoss", tag, err)
			}
		}
		if has, err := b.Store.Has(digest.FromBytes(data)); has || err != nil {
			t.Errorf("%s is stored: %t, %v", tag, has, err)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	for _, m := range remotestest.Build(remotestest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}}).Manifests {
		f.Add(m.Data, m.Descriptor.MediaType)
		f.Add(m.Data, "")
	}
	f.Add([]byte(`{"schemaVersion":2,"manifests":[],"layers":[]}`), "")
	f.Fuzz(func(t *testing.T, data []byte, contentType string) {
		m, err := cache.ParseManifest(data, contentType)
		if err != nil {
			if !errdefs.IsDataLoss(err) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		if !cache.IsManifestMediaType(m.MediaType) || !json.Valid(data) {
			t.Fatalf("took %q as %q", data, m.MediaType)
		}
		for _, d := range m.Children() {
			if d.Digest.Validate() != nil || d.Size < 0 {
				t.Fatalf("took child %+v", d)
			}
		}
		// What was settled once is settled the same way again.
		if again, err := cache.ParseManifest(data, m.MediaType); err != nil || again.MediaType != m.MediaType {
			t.Fatalf("was %q, then %q, %v", m.MediaType, again.MediaType, err)
		}
	})
}
