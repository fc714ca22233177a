package cache

import (
	"context"
	"fmt"
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
			s.noteDisk(ctx, err, int64(len(data)))
			s.notePassed()
			return fmt.Errorf("put %s: %w", dgst, err)
		}
	}
	return s.notePublished(dgst, int64(len(data)), facts, !has, "")
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
		err = s.reserve(ctx, in.dir, int64(len(data)))
	}
	if err == nil {
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
// nobody can or will resume: notes without bytes, or with another's name in
// place of their own, the ingests of Put, and what was not written to for
// ingestTTL. What stays is counted. Files that are not ingests are left alone.
func (s *Store) sweepIngests() {
	s.eachIngest(func(dir string) {
		st, err := s.readStatus(dir)
		// A power cut may keep the name of a note and lose what it says.
		nameless := err == nil && s.ingestPath(st.Ref) != dir
		if err == nil && !nameless && !strings.HasPrefix(st.Ref, putRef) && !s.isAbandoned(st.UpdatedAt) {
			s.usage.wrote(dir, st.Offset)
			return
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return
		}
		if err := removeAll(s.disk, dir); err != nil {
			s.logger.Warn("ingest not removed", "path", dir, "err", err)
		}
	})
}

// sweepAbandoned removes, while the store is in use, what was not written to for
// ingestTTL. Notes without bytes may be an ingest that is just begun, and stay.
func (s *Store) sweepAbandoned() {
	s.eachIngest(func(dir string) {
		if st, err := s.readStatus(dir); err != nil || !s.isAbandoned(st.UpdatedAt) {
			return
		}
		if _, err := s.removeIngest(dir); err != nil {
			s.logger.Warn("ingest not removed", "path", dir, "err", err)
		}
	})
}

func (s *Store) isAbandoned(written time.Time) bool { return s.now().Sub(written) > ingestTTL }

// removeIngest removes an ingest that nobody writes to.
func (s *Store) removeIngest(dir string) (removed bool, _ error) {
	st, err := s.readStatus(dir)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if s.acquireRef(st.Ref) != nil {
		return false, nil
	}
	defer s.releaseRef(st.Ref)
	if err := removeAll(s.disk, dir); err != nil {
		return false, err
	}
	s.usage.drop(dir)
	return true, nil
}

func (s *Store) eachIngest(do func(dir string)) {
	root := filepath.Join(s.root, "ingest")
	dirs, err := readDir(s.disk, root)
	if err != nil {
		s.logger.Warn("ingests not swept", "err", err)
		return
	}
	for _, d := range dirs {
		if d.IsDir() && digest.SHA256.Validate(d.Name()) == nil {
			do(filepath.Join(root, d.Name()))
		}
	}
}
