package cache

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// OpenVerified is Open for whoever hands the bytes to somebody else. A blob whose
// file has another size than the one that was published is set aside. One of
// which the index does not know that its bytes were ever right, because it lost
// that or never had it, is read as a whole first; and so is, with WithBoot, one
// that was not read yet since the machine booted. What is damaged is
// errdefs.ErrNotFound. All who ask wait for one reading, which goes on when they
// leave.
func (s *Store) OpenVerified(ctx context.Context, dgst digest.Digest) (*Blob, error) {
	b, err := s.Open(dgst)
	if err != nil {
		return nil, err
	}
	facts, err := s.Facts(dgst)
	known := err == nil && facts.IsMeasured()
	switch {
	case err != nil && !errdefs.IsNotFound(err) && s.boot.id == "":
		return b, nil // that the index cannot be read must not cost the blob
	case known && facts.Size != b.Size():
		damage := fmt.Errorf("file has %d bytes, %d were published: %w", b.Size(), facts.Size, errdefs.ErrDataLoss)
		b.Close()
		return nil, s.giveUp(ctx, dgst, damage, s.Damaged(ctx, dgst, damage))
	case known && (s.boot.id == "" || s.isReadSinceBoot(b, facts)):
		return b, nil
	}
	b.Close()
	err = s.readOnce(ctx, dgst)
	if errdefs.IsDataLoss(err) {
		var stays error
		if has, herr := s.Has(dgst); has && herr == nil {
			stays = err
		}
		return nil, s.giveUp(ctx, dgst, err, stays)
	}
	if err != nil {
		return nil, err
	}
	return s.Open(dgst)
}

// giveUp says that a damaged blob is no longer there. stays is why it could not be
// set aside: then it is treated as if it had been.
func (s *Store) giveUp(ctx context.Context, dgst digest.Digest, damage, stays error) error {
	if stays != nil {
		s.noteUnreadable(dgst)
		s.noteDisk(ctx, stays, 0)
	}
	return fmt.Errorf("blob %s was damaged: %v: %w", dgst, damage, errdefs.ErrNotFound) //nolint:errorlint // it is no longer there, that is all
}

// IsMeasured reports whether this store has seen the blob's bytes to be right, so
// that Size is theirs and no manifest's claim. An older larder noted the source
// alone.
func (f Facts) IsMeasured() bool { return f.Measured || f.Source != "" || !f.Verified.IsZero() }
