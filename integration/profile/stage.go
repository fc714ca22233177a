package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/integration/internal/parts"
)

// The image: its name, and the size of each of its layers.
const (
	repo      = "library/app"
	tag       = "latest"
	layerSize = 256 << 20
	layers    = 8
)

// stage is a larder whose store has an image, and the image's upstream.
type stage struct {
	dir      string
	upstream *httptest.Server
	larder   *parts.Larder
	files    map[string][]byte // by path, as upstream serves them
	manifest ocispec.Descriptor
	layer    ocispec.Descriptor
	closers  []func() error
}

func newStage(ctx context.Context, bin parts.Bin, level string) (_ *stage, err error) {
	s := &stage{files: map[string][]byte{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.dir, err = parts.TempDir(); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, func() error { return os.RemoveAll(s.dir) })
	if err := s.makeImage(); err != nil {
		return nil, err
	}
	s.upstream = httptest.NewServer(http.HandlerFunc(s.answer))
	s.closers = append(s.closers, func() error { s.upstream.Close(); return nil })
	// The log goes to a file, as with a daemon: read by this program it would
	// cost the load its time.
	behind := fmt.Sprintf("#!/bin/sh\nexec %q \"$@\" 2>>%q\n", bin.Path("larder"), s.logPath())
	if err := parts.WriteProgram(filepath.Join(s.dir, "larder-logged"), behind); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "bin"), 0o700); err != nil {
		return nil, err
	}
	if err := os.Rename(filepath.Join(s.dir, "larder-logged"), filepath.Join(s.dir, "bin", "larder")); err != nil {
		return nil, err
	}
	config := fmt.Sprintf("log.level = %q\n[[routes]]\nregistry = \"docker.io\"\nupstreams = [%q]\n", level, s.upstream.URL)
	if s.larder, err = parts.StartLarder(ctx, parts.Bin(filepath.Join(s.dir, "bin")), s.dir, config); err != nil {
		return nil, fmt.Errorf("%w: %s", err, s.log())
	}
	s.closers = append(s.closers, s.larder.Close)
	return s, s.store(ctx)
}

// close ends what was started, the last first.
func (s *stage) close() error {
	var errs []error
	for _, end := range slices.Backward(s.closers) {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

func (s *stage) logPath() string { return filepath.Join(s.dir, "larder.log") }
func (s *stage) socket() string  { return filepath.Join(filepath.Dir(s.larder.Config()), "admin.sock") }

// log is the end of what larder has logged.
func (s *stage) log() string {
	text, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// makeImage makes an image from a seed. The manifest has as many layers as an
// image of everyday has; only the first is there.
func (s *stage) makeImage() error {
	noise := rand.NewChaCha8([32]byte{6})
	add := func(size int, mediaType string) ocispec.Descriptor {
		data := make([]byte, size)
		_, _ = noise.Read(data) // it never fails
		return s.add("blobs", "", mediaType, data)
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: add(2000, ocispec.MediaTypeImageConfig),
	}
	s.layer = add(layerSize, ocispec.MediaTypeImageLayerGzip)
	m.Layers = append(m.Layers, s.layer)
	for range layers - 1 {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(binary(noise.Uint64())), Size: layerSize})
	}
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	s.manifest = s.add("manifests", tag, m.MediaType, data)
	return nil
}

func binary(n uint64) []byte { return fmt.Append(nil, n) }

func objectPath(kind, object string) string { return "/v2/" + repo + "/" + kind + "/" + object }

// add adds a file under its digest, and under a name.
func (s *stage) add(kind, name, mediaType string, data []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	for _, object := range []string{name, desc.Digest.String()} {
		if object != "" {
			s.files[objectPath(kind, object)] = data
		}
	}
	return desc
}

// answer is the upstream.
func (s *stage) answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" {
		return
	}
	data, ok := s.files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(data).String())
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// store has larder store the image.
func (s *stage) store(ctx context.Context) error {
	for _, r := range allRows() {
		path, desc := r.object(s)
		if err := s.get(ctx, path, desc); err != nil {
			return fmt.Errorf("store: %w; %s", err, s.log())
		}
	}
	return nil
}

// get asks larder for an object, and compares its digest.
func (s *stage) get(ctx context.Context, path string, desc ocispec.Descriptor) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.larder.URL+path+"?ns=docker.io", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := digest.FromReader(resp.Body)
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK || got != desc.Digest {
		return fmt.Errorf("GET %s: %s with %s, want %s", path, resp.Status, got, desc.Digest)
	}
	return nil
}
