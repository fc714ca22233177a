package cache

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// What the refs of the store's own ingests begin with.
const (
	fillRef = "fill-" // and the digest
	putRef  = "put-"  // and the digest
)

// Put publishes data, which must hash to dgst, with the facts known of it.
// Data that is already there is no error; the facts are noted all the same.
func (s *Store) Put(ctx context.Context, dgst digest.Digest, data []byte, facts Facts) error {
	has, err := s.Has(dgst)
	if err != nil {
		return err
	}
	if !has {
		if got := dgst.Algorithm().FromBytes(data); got != dgst {
			return fmt.Errorf("put %s: digest is %s: %w", dgst, got, errdefs.ErrFailedPrecondition)
		}
		if err := s.putBytes(ctx, dgst, data); err != nil && !errdefs.IsAlreadyExists(err) {
			return fmt.Errorf("put %s: %w", dgst, err)
		}
	}
	return s.notePublished(dgst, int64(len(data)), facts, !has)
}

func (s *Store) putBytes(ctx context.Context, dgst digest.Digest, data []byte) error {
	ref := putRef + dgst.String()
	if err := s.awaitRef(ctx, ref); err != nil {
		return err
	}
	defer s.releaseRef(ref)
	in, err := s.openIngest(ctx, ref, 0, dgst.Algorithm())
	if err != nil {
		return err
	}
	if err = in.truncate(); err == nil {
		_, err = in.Write(data)
	}
	if err == nil {
		err = in.publish(ctx, dgst)
	}
	if err != nil {
		in.remove(ctx) // nothing to resume: the caller has the bytes
	}
	if cerr := in.close(); err == nil {
		err = cerr
	}
	return err
}

// ingestTTL is how long an ingest that nobody writes to is kept.
const ingestTTL = 7 * 24 * time.Hour

// sweepIngests removes, at Open, what a crash left in the ingest folder and
// nobody can or will resume: notes without bytes, the ingests of Put, and what
// was not written to for ingestTTL. Files that
// are not ingests are left alone.
func (s *Store) sweepIngests() {
	root := filepath.Join(s.root, "ingest")
	dirs, err := os.ReadDir(root)
	if err != nil {
		s.logger.Warn("ingests not swept", "err", err)
		return
	}
	for _, d := range dirs {
		if !d.IsDir() || digest.SHA256.Validate(d.Name()) != nil {
			continue
		}
		dir := filepath.Join(root, d.Name())
		st, err := s.readStatus(dir)
		abandoned := err == nil && time.Since(st.UpdatedAt) > ingestTTL
		if !errdefs.IsNotFound(err) && !strings.HasPrefix(st.Ref, putRef) && !abandoned {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			s.logger.Warn("ingest not removed", "path", dir, "err", err)
		}
	}
}
