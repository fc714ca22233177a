package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// The quarantine holds damaged files for a person to look at, and not more of
// them than that: the newest quarantineFiles, and of these at most
// quarantineBytes and a quarantineShare-th part of the file system.
const (
	quarantineFiles = 16
	quarantineBytes = 1 << 30
	quarantineShare = 100
)

// quarantineTime is fixed in width, so that names sort by it.
const quarantineTime = "20060102T150405.000000000Z"

// Damaged takes what is in a blob's place out of the way, as after a reading
// that failed with why: it is moved to the quarantine and recorded, and the
// blob is not there any more. Who holds or links it stays known. That nothing
// is there is no error.
func (s *Store) Damaged(ctx context.Context, dgst digest.Digest, why error) error {
	return s.setAside(ctx, dgst, nil, why)
}

// setAside is Damaged, but leaves alone what is no longer what was seen (nil:
// whatever it is): somebody may have brought the blob anew since.
func (s *Store) setAside(ctx context.Context, dgst digest.Digest, seen fs.FileInfo, why error) error {
	path, err := s.blobPath(dgst)
	if err != nil {
		return err
	}
	if err := s.checkPlace(); err != nil {
		return fmt.Errorf("set %s aside: %w", dgst, err)
	}
	s.quarantining.Lock()
	defer s.quarantining.Unlock()
	fi, err := s.disk.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && seen != nil && !isSame(fi, seen) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set %s aside: %w", dgst, err)
	}
	d := Damage{Digest: dgst, Found: s.now().UTC(), Why: why.Error(), Size: fi.Size()}
	if facts, err := s.Facts(dgst); err == nil {
		d.Source = facts.Source
	}
	s.logger.ErrorContext(ctx, "stored blob is damaged and is set aside", "digest", dgst, "bytes", d.Size, "source", d.Source, "err", why)
	if d.Kept, err = s.takeAway(path, dgst, d.Found, fi); err != nil {
		return fmt.Errorf("set %s aside: %w", dgst, err)
	}
	s.exposures.setLost(dgst, true)
	if err := s.index.putDamage(d); err != nil {
		s.logger.WarnContext(ctx, "damage not recorded", "digest", dgst, "err", err)
	}
	s.purgeQuarantine(ctx)
	return nil
}

// isSame reports whether two looks were at one file. Each blob gets its own
// time when it is published.
func isSame(a, b fs.FileInfo) bool {
	return a.Mode() == b.Mode() && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// takeAway is moveAside, and counts a file as no blob any more.
func (s *Store) takeAway(path string, dgst digest.Digest, at time.Time, fi fs.FileInfo) (kept string, err error) {
	if !fi.Mode().IsRegular() {
		return s.moveAside(path, dgst, at)
	}
	s.usage.changing(dgst, blocksOf(fi))
	if kept, err = s.moveAside(path, dgst, at); err != nil {
		s.usage.unchanged(dgst)
		return "", err
	}
	s.usage.deleted(dgst, blocksOf(fi))
	return kept, nil
}

// moveAside moves a file to the quarantine and returns its name there. One that
// cannot be moved is removed: worse than to lose it is to serve it. A folder is
// never removed.
func (s *Store) moveAside(path string, dgst digest.Digest, at time.Time) (kept string, err error) {
	dir := s.quarantineDir()
	kept = quarantineName(dgst, at)
	if err = s.disk.Mkdir(dir, 0o700); err == nil {
		err = SyncFolder(s.disk, s.root)
	}
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = s.disk.Rename(path, filepath.Join(dir, kept))
	}
	if err != nil {
		fi, lerr := s.disk.Lstat(path)
		if lerr != nil || fi.IsDir() {
			return "", errors.Join(err, lerr)
		}
		if rerr := s.disk.Remove(path); rerr != nil {
			return "", errors.Join(err, rerr)
		}
		kept = ""
	}
	// The old name first: that it comes back is worse than that the file is
	// nowhere.
	if err := SyncFolder(s.disk, filepath.Dir(path)); err != nil {
		s.logger.Warn("quarantine: sync", "err", err)
	}
	if kept != "" {
		if err := SyncFolder(s.disk, dir); err != nil {
			s.logger.Warn("quarantine: sync", "err", err)
		}
	}
	return kept, nil
}

func (s *Store) quarantineDir() string { return filepath.Join(s.root, "quarantine") }

func quarantineName(dgst digest.Digest, at time.Time) string {
	return dgst.Algorithm().String() + "-" + dgst.Encoded() + "." + at.UTC().Format(quarantineTime)
}

// parseQuarantineName is the reverse. What larder did not write is not ok.
func parseQuarantineName(name string) (dgst digest.Digest, at time.Time, ok bool) {
	alg, rest, _ := strings.Cut(name, "-")
	encoded, when, _ := strings.Cut(rest, ".")
	dgst = digest.NewDigestFromEncoded(digest.Algorithm(alg), encoded)
	at, err := time.Parse(quarantineTime, when)
	if err != nil || dgst.Validate() != nil || quarantineName(dgst, at) != name {
		return "", time.Time{}, false
	}
	return dgst, at, true
}

// quarantined is a file in the quarantine.
type quarantined struct {
	name  string
	at    time.Time
	bytes int64
	isDir bool
}

// listQuarantine lists what is in the quarantine, the newest first.
func (s *Store) listQuarantine() ([]quarantined, error) {
	var all []quarantined
	err := eachEntry(s.disk, s.quarantineDir(), func(e fs.DirEntry) error {
		_, at, ok := parseQuarantineName(e.Name())
		if !ok {
			return nil
		}
		fi, err := s.disk.Lstat(filepath.Join(s.quarantineDir(), e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		q := quarantined{name: e.Name(), at: at, isDir: fi.IsDir()}
		if fi.Mode().IsRegular() {
			q.bytes = fi.Size()
		}
		all = append(all, q)
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list quarantine: %w", err)
	}
	slices.SortFunc(all, func(a, b quarantined) int { return b.at.Compare(a.at) })
	return all, nil
}

// purgeQuarantine removes what is beyond the bounds. Folders stay: somebody
// put them among the blobs, and may want what is in them.
func (s *Store) purgeQuarantine(ctx context.Context) {
	all, err := s.listQuarantine()
	if err != nil {
		s.logger.WarnContext(ctx, "quarantine not purged", "err", err)
		return
	}
	limit := int64(quarantineBytes)
	if free, err := s.disk.Free(s.root); err == nil {
		limit = min(limit, free.Total/quarantineShare)
	}
	files, bytes := 0, int64(0)
	for _, q := range all {
		if q.isDir {
			continue
		}
		if files < quarantineFiles && bytes+q.bytes <= limit {
			files++
			bytes += q.bytes
			continue
		}
		if err := s.disk.Remove(filepath.Join(s.quarantineDir(), q.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.logger.WarnContext(ctx, "quarantine not purged", "file", q.name, "err", err)
		}
	}
}
