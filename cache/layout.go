package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FormatVersion is the version of everything below a store's root. A store
// with a higher one is left alone.
const FormatVersion = 1

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
		if err := s.disk.Mkdir(filepath.Join(s.root, dir), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("store: make folder: %w", err)
		}
	}
	format, err := json.Marshal(format{Format: FormatVersion})
	if err != nil {
		return fmt.Errorf("store: encode format: %w", err)
	}
	if err := s.writeIfMissing(s.formatPath(), format); err != nil {
		return err
	}
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return fmt.Errorf("store: encode oci-layout: %w", err)
	}
	if err := s.writeIfMissing(filepath.Join(s.root, ocispec.ImageLayoutFile), layout); err != nil {
		return err
	}
	// The new folders themselves must survive a power cut, or a blob that is
	// synced into them does not.
	return errors.Join(SyncFolder(s.disk, s.blobsPath()), SyncFolder(s.disk, s.root))
}

func (s *Store) formatPath() string { return filepath.Join(s.root, "larder.json") }

func (s *Store) checkFormat() error {
	path := s.formatPath()
	text, err := readNote(s.disk, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a new store, or a content store that is taken over
	}
	if err != nil {
		return fmt.Errorf("store: read format: %w", err)
	}
	version, err := decodeFormat(text)
	if err != nil {
		return fmt.Errorf("store: %s is not readable, remove it if something damaged it: %w: %w",
			path, err, errdefs.ErrFailedPrecondition)
	}
	if version > FormatVersion {
		return fmt.Errorf("store %s has format %d, this larder knows up to %d: use the newer larder, or another root: %w",
			s.root, version, FormatVersion, errdefs.ErrFailedPrecondition)
	}
	return nil
}

func (s *Store) writeIfMissing(path string, data []byte) error {
	if _, err := s.disk.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := replaceFile(s.disk, path, data, 0o644); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// blobPath is the only way from a digest to a path. Validate admits known
// algorithms and their hex forms alone, so no digest leads out of the root.
func (s *Store) blobPath(dgst digest.Digest) (string, error) {
	if isSHA256(dgst) { // nearly every one; to match it costs more than to look at the file
		return filepath.Join(s.root, "blobs", string(digest.SHA256), string(dgst[sha256Prefix:])), nil
	}
	if err := dgst.Validate(); err != nil {
		return "", fmt.Errorf("digest %.100q: %w: %w", dgst, err, errdefs.ErrInvalidArgument)
	}
	return filepath.Join(s.blobsPath(), dgst.Algorithm().String(), dgst.Encoded()), nil
}

const sha256Prefix = len("sha256:")

// isSHA256 is Validate for the digests of that algorithm.
func isSHA256(dgst digest.Digest) bool {
	if len(dgst) != sha256Prefix+64 || dgst[:sha256Prefix] != "sha256:" {
		return false
	}
	for _, c := range []byte(dgst[sha256Prefix:]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// ingestPath is the folder of an ingest. The ref is hashed, as in
// containerd's store, since it may hold anything.
func (s *Store) ingestPath(ref string) string {
	return filepath.Join(s.root, "ingest", digest.FromString(ref).Encoded())
}
