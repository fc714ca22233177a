package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	kgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// tag is that of each image.
const tag = "1"

// recipe is what an image is made of. The same recipe gives the same bytes.
type recipe struct {
	repo string
	seed uint64
	// layers are the sizes of the compressed layers, within some KiB; those at odd
	// places are zstd, the others gzip.
	layers []int64
}

// eightShares are how the 8 layers of an image share its size, in 32nds.
func eightShares() []int64 { return []int64{8, 6, 5, 4, 3, 3, 2, 1} }

func eightLayers(repo string, seed uint64, size int64) recipe {
	r := recipe{repo: repo, seed: seed}
	for _, share := range eightShares() {
		r.layers = append(r.layers, size*share/32)
	}
	return r
}

func sixtyLayers(repo string, seed uint64, size int64) recipe {
	r := recipe{repo: repo, seed: seed}
	for range 60 {
		r.layers = append(r.layers, size/60)
	}
	return r
}

// image is one that was made.
type image struct {
	repo     string
	manifest ocispec.Descriptor
	config   ocispec.Descriptor
	layers   []ocispec.Descriptor
	// numbered is how many tags it has besides, named by numberedTag.
	numbered int
}

// numberedTag is the name of one of an image's tags. With "*" for the number, it is
// that of all.
func numberedTag[N int | string](n N) string { return fmt.Sprint("t", n) }

// named says whether ref is one of its tags, or its digest.
func (img *image) named(ref string) bool {
	if number, ok := strings.CutPrefix(ref, "t"); ok {
		n, err := strconv.Atoi(number)
		return err == nil && 0 <= n && n < img.numbered
	}
	return ref == tag || ref == img.manifest.Digest.String()
}

// blobs are what a pull brings besides the manifest, each once.
func (img *image) blobs() []ocispec.Descriptor {
	return append([]ocispec.Descriptor{img.config}, img.layers...)
}

// size is that of all of these.
func (img *image) size() (n int64) {
	for _, b := range img.blobs() {
		n += b.Size
	}
	return n
}

// images are the blobs and manifests of all images, in one folder.
type images struct {
	dir    string
	byRepo map[string]*image
}

func (im *images) path(dgst digest.Digest) string {
	return filepath.Join(im.dir, "blobs", dgst.Algorithm().String(), dgst.Encoded())
}

func (im *images) has(dgst digest.Digest) bool {
	_, err := os.Stat(im.path(dgst))
	return err == nil
}

// newImages makes the folder for them.
func newImages(dir string) (*images, error) {
	im := &images{dir: dir, byRepo: map[string]*image{}}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return nil, fmt.Errorf("folder of images: %w", err)
	}
	return im, nil
}

// add makes one, unless it is there.
func (im *images) add(ctx context.Context, r recipe) (*image, error) {
	if img, ok := im.byRepo[r.repo]; ok {
		return img, nil
	}
	img := &image{repo: r.repo, layers: make([]ocispec.Descriptor, len(r.layers))}
	diffIDs := make([]digest.Digest, len(r.layers))
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(runtime.NumCPU())
	for i := range r.layers {
		all.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			img.layers[i], diffIDs[i], err = im.layer(r, i)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, fmt.Errorf("make image %s: %w", r.repo, err)
	}
	created := time.Unix(0, 0).UTC()
	var err error
	if img.config, err = im.document(ocispec.MediaTypeImageConfig, ocispec.Image{
		Created: &created, Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: diffIDs},
	}); err != nil {
		return nil, err
	}
	if img.manifest, err = im.document(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: img.config, Layers: img.layers,
	}); err != nil {
		return nil, err
	}
	im.byRepo[r.repo] = img
	return img, nil
}

// tiny makes n blobs of some bytes, which belong to no image.
func (im *images) tiny(ctx context.Context, n int) ([]ocispec.Descriptor, error) {
	all := make([]ocispec.Descriptor, n)
	for i := range all {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		data := fmt.Appendf(nil, "tiny blob %d\n", i)
		all[i] = ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
		if err := os.WriteFile(im.path(all[i].Digest), data, 0o644); err != nil {
			return nil, fmt.Errorf("make blobs: %w", err)
		}
	}
	return all, nil
}

// document stores a value as JSON.
func (im *images) document(mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("make %s: %w", mediaType, err)
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := os.WriteFile(im.path(desc.Digest), data, 0o644); err != nil {
		return desc, fmt.Errorf("make %s: %w", mediaType, err)
	}
	return desc, nil
}

// layer makes one layer: a tar stream with one file after the other, until it is large
// enough.
func (im *images) layer(r recipe, i int) (desc ocispec.Descriptor, diffID digest.Digest, err error) {
	f, err := os.CreateTemp(im.dir, "layer-")
	if err != nil {
		return desc, "", fmt.Errorf("layer %d: %w", i, err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	packed, plain := sha256.New(), sha256.New()
	out := &counter{w: io.MultiWriter(f, packed)}
	var z io.WriteCloser
	if desc.MediaType = ocispec.MediaTypeImageLayerGzip; i%2 == 1 {
		desc.MediaType = ocispec.MediaTypeImageLayerZstd
		// Two goroutines that share their work would end blocks where it suits them.
		z, err = zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	} else {
		z, err = kgzip.NewWriterLevel(out, kgzip.BestSpeed)
	}
	if err != nil {
		return desc, "", fmt.Errorf("layer %d: %w", i, err)
	}
	if err := writeLayer(io.MultiWriter(z, plain), out, noise(r.seed, i), r.layers[i]); err != nil {
		return desc, "", fmt.Errorf("layer %d: %w", i, err)
	}
	if err := z.Close(); err != nil {
		return desc, "", fmt.Errorf("layer %d: %w", i, err)
	}
	desc.Digest, desc.Size = digest.NewDigest(digest.SHA256, packed), out.n
	if err := os.Rename(f.Name(), im.path(desc.Digest)); err != nil {
		return desc, "", fmt.Errorf("layer %d: %w", i, err)
	}
	return desc, digest.NewDigest(digest.SHA256, plain), f.Chmod(0o644)
}

// writeLayer writes files to a layer until its compressed form, which out counts, has
// the size. Three quarters of what a file holds cannot be compressed, as in images,
// where binaries and libraries are most of it.
func writeLayer(w io.Writer, out *counter, random io.Reader, size int64) error {
	archive := tar.NewWriter(w)
	data := make([]byte, 64<<10)
	text := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog\n"), 400)
	for i := 0; i == 0 || out.n < size-int64(len(data)); i++ {
		if _, err := io.ReadFull(random, data[:48<<10]); err != nil {
			return err
		}
		copy(data[48<<10:], text)
		part := data[:min(int64(len(data)), max(size-out.n, 512))]
		header := &tar.Header{Name: fmt.Sprintf("usr/lib/%d/%d", i/100, i), Mode: 0o644, Size: int64(len(part)), ModTime: time.Unix(0, 0)}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(part); err != nil {
			return err
		}
	}
	return archive.Close()
}

// noise is the source of one layer's bytes.
func noise(seed uint64, layer int) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(layer))
	return rand.NewChaCha8(key)
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
