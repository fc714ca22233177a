package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// formatVersion is the version of everything below a store's root. A store
// with a higher one is left alone.
const formatVersion = 1

type format struct {
	Format int `json:"format"`
}

// prepareLayout makes the folders of a store, after a look at who wrote it.
func (s *Store) prepareLayout() error {
	// First, so that a store of a newer larder is not touched.
	if err := s.checkFormat(); err != nil {
		return err
	}
	for _, dir := range []string{"blobs", filepath.Join("blobs", "sha256"), "ingest"} {
		if err := os.Mkdir(filepath.Join(s.root, dir), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("store: make folder: %w", err)
		}
	}
	format, err := json.Marshal(format{Format: formatVersion})
	if err != nil {
		return fmt.Errorf("store: encode format: %w", err)
	}
	if err := writeIfMissing(s.formatPath(), format); err != nil {
		return err
	}
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return fmt.Errorf("store: encode oci-layout: %w", err)
	}
	if err := writeIfMissing(filepath.Join(s.root, ocispec.ImageLayoutFile), layout); err != nil {
		return err
	}
	// The new folders themselves must survive a power cut, or a blob that is
	// synced into them does not.
	return errors.Join(syncDir(filepath.Join(s.root, "blobs")), syncDir(s.root))
}

func (s *Store) formatPath() string { return filepath.Join(s.root, "larder.json") }

func (s *Store) checkFormat() error {
	path := s.formatPath()
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a new store, or a content store that is taken over
	}
	if err != nil {
		return fmt.Errorf("store: read format: %w", err)
	}
	var f format
	if err = json.Unmarshal(text, &f); err == nil && f.Format < 1 {
		err = fmt.Errorf("format is %d, want 1 or more", f.Format)
	}
	if err != nil {
		return fmt.Errorf("store: %s is not readable, remove it if something damaged it: %w: %w",
			path, err, errdefs.ErrFailedPrecondition)
	}
	if f.Format > formatVersion {
		return fmt.Errorf("store %s has format %d, this larder knows up to %d: use the newer larder, or another root: %w",
			s.root, f.Format, formatVersion, errdefs.ErrFailedPrecondition)
	}
	return nil
}

func writeIfMissing(path string, data []byte) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Rename makes the file appear whole: a crash leaves a stray .new at most.
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("store: write %s: %w", tmp, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// blobPath is the only way from a digest to a path. Validate admits known
// algorithms and their hex forms alone, so no digest leads out of the root.
func (s *Store) blobPath(dgst digest.Digest) (string, error) {
	if err := dgst.Validate(); err != nil {
		return "", fmt.Errorf("digest %.100q: %w: %w", dgst, err, errdefs.ErrInvalidArgument)
	}
	return filepath.Join(s.root, "blobs", dgst.Algorithm().String(), dgst.Encoded()), nil
}

// ingestPath is the folder of an ingest. The ref is hashed, as in
// containerd's store, since it may hold anything.
func (s *Store) ingestPath(ref string) string {
	return filepath.Join(s.root, "ingest", digest.FromString(ref).Encoded())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", path, err)
	}
	return nil
}
