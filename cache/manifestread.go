package cache

import (
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// MaxManifestSize bounds in bytes what is read as a manifest: it is what larder
// takes from upstreams.
const MaxManifestSize = 4 << 20

// errNoManifest is for what is too large to be one.
var errNoManifest = fmt.Errorf("too large for a manifest: %w", errdefs.ErrDataLoss)

// ReadManifest returns the bytes of a stored manifest, or of a config, which is
// bounded like one. Its size on disk may be anything, if someone tampered with it:
// one that is larger than MaxManifestSize, or does not have its digest, is
// errdefs.ErrDataLoss. Without a blob it is errdefs.ErrNotFound.
//
// It reads the file. What ManifestInMemory returns from then on are the same bytes:
// they are not to be changed.
func (s *Store) ReadManifest(dgst digest.Digest) ([]byte, error) {
	before, statErr := s.stat(dgst)
	b, err := s.Open(dgst)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if b.Size() > MaxManifestSize {
		return nil, fmt.Errorf("stored manifest %s has %d bytes: %w", dgst, b.Size(), errNoManifest)
	}
	data := make([]byte, b.Size())
	if _, err := io.ReadFull(b, data); err != nil {
		return nil, fmt.Errorf("read %s: %w", dgst, err)
	}
	if dgst.Algorithm().FromBytes(data) != dgst {
		return nil, fmt.Errorf("stored manifest %s does not have its digest: %w", dgst, errdefs.ErrDataLoss)
	}
	if after, err := b.Stat(); err == nil && statErr == nil {
		s.manifests.add(dgst, before, after, data, s.now())
	}
	return data, nil
}

// ManifestInMemory returns what ReadManifest has read lately of a file that is
// still there and the same. It looks at the file, and does not read it.
func (s *Store) ManifestInMemory(dgst digest.Digest) (data []byte, ok bool) {
	fi, err := s.stat(dgst)
	if err != nil {
		return nil, false
	}
	return s.manifests.get(dgst, fi)
}

// ParseStored is ParseManifest for a stored one. What it is the document says, and
// mediaType, which may be another manifest's claim, only where the document does
// not.
func ParseStored(data []byte, mediaType string) (Manifest, error) {
	m, err := ParseManifest(data, mediaType)
	if err != nil {
		m, err = ParseManifest(data, "")
	}
	return m, err
}
