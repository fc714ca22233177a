package remotestest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// contents maps each blob and manifest of an image to its bytes, and checks
// that every descriptor tells the truth.
func contents(t *testing.T, img Image) map[digest.Digest]Blob {
	t.Helper()
	out := map[digest.Digest]Blob{}
	for _, b := range slices.Concat(img.Blobs, img.Manifests) {
		if digest.FromBytes(b.Data) != b.Descriptor.Digest || int64(len(b.Data)) != b.Descriptor.Size {
			t.Errorf("%s: descriptor differs from its %d bytes", b.Descriptor.Digest, len(b.Data))
		}
		if _, twice := out[b.Descriptor.Digest]; twice {
			t.Errorf("%s: listed twice", b.Descriptor.Digest)
		}
		out[b.Descriptor.Digest] = b
	}
	return out
}

// unpack returns the regular files of a layer and the digest of its tar.
func unpack(t *testing.T, data []byte) (map[string][]byte, digest.Digest) {
	t.Helper()
	gz, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(gz)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	tr := tar.NewReader(bytes.NewReader(raw))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, digest.FromBytes(raw)
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			files[h.Name] = b
		}
	}
}

func TestBuild(t *testing.T) {
	t.Parallel()
	for name, docker := range map[string]bool{"oci": false, "docker": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := Build(ImageSpec{
				Seed: 7, Docker: docker, Layers: []int64{0, 1000, 300000},
				Platforms: []string{"linux/amd64", "linux/arm64/v8"},
				Files:     []File{{Path: "/bin/run", Mode: 0o755, Data: []byte("run")}},
				Cmd:       []string{"/bin/run"},
			})
			have := contents(t, img)
			types := [4]string{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip}
			if docker {
				types = [4]string{MediaTypeDockerList, MediaTypeDockerManifest, MediaTypeDockerConfig, MediaTypeDockerLayer}
			}
			var index ocispec.Index
			decode(t, have, img.Root, types[0], &index)
			if len(index.Manifests) != 2 || index.Manifests[1].Platform.Variant != "v8" || index.MediaType != types[0] {
				t.Fatalf("got index %+v", index)
			}
			for _, desc := range index.Manifests {
				var mf ocispec.Manifest
				decode(t, have, desc, types[1], &mf)
				var config ocispec.Image
				decode(t, have, mf.Config, types[2], &config)
				if config.Architecture != desc.Platform.Architecture || config.Config.Cmd[0] != "/bin/run" {
					t.Errorf("got config %+v", config)
				}
				if len(mf.Layers) != 4 || len(config.RootFS.DiffIDs) != 4 {
					t.Fatalf("got %d layers, %d diff ids, want 4", len(mf.Layers), len(config.RootFS.DiffIDs))
				}
				for i, l := range mf.Layers {
					files, diffID := unpack(t, have[l.Digest].Data)
					if l.MediaType != types[3] || diffID != config.RootFS.DiffIDs[i] {
						t.Errorf("layer %d: got %s, diff id %s, want %s", i, l.MediaType, diffID, config.RootFS.DiffIDs[i])
					}
					if i == 2 && (len(files["layer-2/payload"]) != 300000 || l.Size < 300000 || l.Size > 310000) {
						t.Errorf("layer 2: got %d bytes of payload in %d", len(files["layer-2/payload"]), l.Size)
					}
					if i == 3 && string(files["bin/run"]) != "run" {
						t.Errorf("files: got %v", files)
					}
				}
			}
		})
	}
}

// decode reads the JSON that desc points to.
func decode(t *testing.T, have map[digest.Digest]Blob, desc ocispec.Descriptor, mediaType string, into any) {
	t.Helper()
	if desc.MediaType != mediaType || desc.Size != have[desc.Digest].Descriptor.Size {
		t.Errorf("got descriptor %+v, want media type %s", desc, mediaType)
	}
	if err := json.Unmarshal(have[desc.Digest].Data, into); err != nil {
		t.Fatalf("%s: %v", desc.Digest, err)
	}
}

func TestBuildIsDeterministic(t *testing.T) {
	t.Parallel()
	build := func(seed uint64, platforms ...string) Image {
		return Build(ImageSpec{Seed: seed, Layers: []int64{100, 100}, Platforms: platforms})
	}
	one, again, other := build(1, "linux/amd64"), build(1, "linux/amd64"), build(2, "linux/amd64")
	if one.Root.Digest != again.Root.Digest {
		t.Error("one spec, two images")
	}
	have := contents(t, one)
	for _, b := range other.Blobs {
		if _, shared := have[b.Descriptor.Digest]; shared {
			t.Errorf("two seeds share %s", b.Descriptor.Digest)
		}
	}
	both := build(1, "linux/amd64", "linux/arm64")
	if n := len(both.Blobs); n != 6 {
		t.Errorf("two platforms: got %d blobs, want 6 that differ", n)
	}
	if d := both.Descriptors(); len(d) != 9 || d[8].Digest != both.Root.Digest {
		t.Errorf("got descriptors %v", d)
	}
}

func TestBuildDefaults(t *testing.T) {
	t.Parallel()
	img := Build(ImageSpec{})
	var config ocispec.Image
	if err := json.Unmarshal(img.Blobs[1].Data, &config); err != nil {
		t.Fatal(err)
	}
	if config.OS != "linux" || config.Architecture != runtime.GOARCH || img.Root.MediaType != ocispec.MediaTypeImageManifest || img.Root.Platform != nil {
		t.Errorf("got root %+v, config %+v", img.Root, config)
	}
	defer func() {
		if recover() == nil {
			t.Error("a platform without architecture was taken")
		}
	}()
	Build(ImageSpec{Platforms: []string{"linux"}})
}

func TestPutImage(t *testing.T) {
	t.Parallel()
	r := New(t)
	img := Build(ImageSpec{Seed: 3, Platforms: []string{"linux/amd64", "linux/arm64"}})
	if got := r.PutImage("a", "v1", img); got.Digest != img.Root.Digest {
		t.Errorf("got root %s", got.Digest)
	}
	if a := ask(t, "GET", r.URL()+"/v2/a/manifests/v1"); digest.FromBytes(a.body) != img.Root.Digest {
		t.Errorf("by tag: got %d %s", a.status, a.body)
	}
	for _, b := range img.Blobs {
		if a := ask(t, "GET", r.URL()+"/v2/a/blobs/"+b.Descriptor.Digest.String()); !bytes.Equal(a.body, b.Data) {
			t.Errorf("blob: got %d", a.status)
		}
	}
	for _, m := range img.Manifests {
		a := ask(t, "GET", r.URL()+"/v2/a/manifests/"+m.Descriptor.Digest.String())
		if !bytes.Equal(a.body, m.Data) || a.header.Get("Content-Type") != m.Descriptor.MediaType {
			t.Errorf("manifest: got %d %v", a.status, a.header)
		}
	}
}
