package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// makeImage makes one in a folder of its own.
func makeImage(t *testing.T, r recipe) (*images, *image) {
	t.Helper()
	im, err := newImages(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	img, err := im.add(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return im, img
}

// small is the recipe of three layers, two of them gzip.
func small(seed uint64) recipe {
	return recipe{repo: "library/x", seed: seed, layers: []int64{300 << 10, 200 << 10, 100 << 10}}
}

func TestImagesAreTheSame(t *testing.T) {
	t.Parallel()
	r := small(7)
	_, once := makeImage(t, r)
	_, again := makeImage(t, r)
	if once.manifest.Digest != again.manifest.Digest {
		t.Errorf("the same recipe twice: %s and %s", once.manifest.Digest, again.manifest.Digest)
	}
	r.seed++
	_, other := makeImage(t, r)
	for i := range other.layers {
		if other.layers[i].Digest == once.layers[i].Digest {
			t.Errorf("layer %d is the same with another seed", i)
		}
	}
}

func TestImagesAreWhole(t *testing.T) {
	t.Parallel()
	r := small(7)
	im, img := makeImage(t, r)
	if again, err := im.add(t.Context(), r); err != nil || again != img {
		t.Errorf("an image that is there: %v, %v, want the same one", again, err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(content(t, im, img.config), &config); err != nil {
		t.Fatal(err)
	}
	var size int64
	for i, layer := range img.layers {
		size += layer.Size
		if off := layer.Size - r.layers[i]; off < -(70<<10) || off > 20<<10 {
			t.Errorf("layer %d has %d bytes, want about %d", i, layer.Size, r.layers[i])
		}
		plain := inflate(t, layer.MediaType, content(t, im, layer))
		if got := digest.FromBytes(plain); got != config.RootFS.DiffIDs[i] {
			t.Errorf("layer %d inflates to %s, want %s", i, got, config.RootFS.DiffIDs[i])
		}
		archive := tar.NewReader(bytes.NewReader(plain))
		for {
			if _, err := archive.Next(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("layer %d: %v", i, err)
			}
		}
	}
	if img.size() != size+img.config.Size || len(img.blobs()) != 4 {
		t.Errorf("the image says it has %d blobs of %d bytes", len(img.blobs()), img.size())
	}
	if eight, sixty := eightLayers("y", 1, 64).layers, sixtyLayers("z", 1, 60).layers; len(eight) != 8 || eight[0] != 16 || len(sixty) != 60 || sixty[59] != 1 {
		t.Errorf("sizes of layers: %v and %v", eight, sixty)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := im.add(ended, eightLayers("library/z", 1, 1<<20)); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// content is a blob's file, whose digest has to be right.
func content(t *testing.T, im *images, desc ocispec.Descriptor) []byte {
	t.Helper()
	data, err := os.ReadFile(im.path(desc.Digest))
	if err != nil {
		t.Fatal(err)
	}
	if digest.FromBytes(data) != desc.Digest || int64(len(data)) != desc.Size {
		t.Fatalf("%s: %d bytes of %s", desc.Digest, len(data), digest.FromBytes(data))
	}
	return data
}

func inflate(t *testing.T, mediaType string, data []byte) []byte {
	t.Helper()
	var r io.Reader
	var err error
	switch mediaType {
	case ocispec.MediaTypeImageLayerGzip:
		r, err = gzip.NewReader(bytes.NewReader(data))
	case ocispec.MediaTypeImageLayerZstd:
		r, err = zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1))
	default:
		t.Fatalf("media type %s", mediaType)
	}
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}
