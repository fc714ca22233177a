package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
)

// maxRef bounds the length of a ref, and with it what is read of an ingest's
// notes.
const maxRef = 4 << 10

// Status returns the state of the ingest of ref, or errdefs.ErrNotFound.
func (s *Store) Status(_ context.Context, ref string) (content.Status, error) {
	return s.readStatus(s.ingestPath(ref))
}

// ListStatuses returns the state of all ingests whose ref matches one of the
// filters (all without filters).
func (s *Store) ListStatuses(_ context.Context, fs ...string) ([]content.Status, error) {
	filter, err := filters.ParseAll(fs...)
	if err != nil {
		return nil, fmt.Errorf("list ingests: %w", err)
	}
	dirs, err := readDir(s.disk, filepath.Join(s.root, "ingest"))
	if err != nil {
		return nil, fmt.Errorf("list ingests: %w", err)
	}
	var found []content.Status
	for _, d := range dirs {
		st, err := s.readStatus(filepath.Join(s.root, "ingest", d.Name()))
		if errdefs.IsNotFound(err) {
			continue // published or aborted meanwhile, or never whole
		}
		if err != nil {
			return nil, err
		}
		if filter.Match(statusAdaptor(st)) {
			found = append(found, st)
		}
	}
	return found, nil
}

func statusAdaptor(st content.Status) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) == 1 && path[0] == "ref" {
			return st.Ref, true
		}
		return "", false
	})
}

// Abort removes the ingest of ref and its bytes, also below an open writer. It
// returns errdefs.ErrNotFound if there is none, and errdefs.ErrUnavailable if
// it is a running fill's: that is not one client's to end.
func (s *Store) Abort(_ context.Context, ref string) error {
	dir := s.ingestPath(ref)
	if s.isFilling(ref) {
		return fmt.Errorf("abort ingest %q: it is being filled: %w", ref, errdefs.ErrUnavailable)
	}
	if _, err := s.disk.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ingest %q: %w", ref, errdefs.ErrNotFound)
	}
	if err := removeAll(s.disk, dir); err != nil {
		return fmt.Errorf("abort ingest %q: %w", ref, err)
	}
	s.usage.drop(dir)
	return nil
}

// readStatus reads an ingest's folder. A folder that lacks a part is
// errdefs.ErrNotFound: nothing can be resumed from it.
func (s *Store) readStatus(dir string) (content.Status, error) {
	data, err := s.disk.Lstat(filepath.Join(dir, "data"))
	if err == nil && !data.Mode().IsRegular() {
		err = errNoNote
	}
	if err != nil {
		return content.Status{}, ingestError(dir, err)
	}
	ref, err := readNote(s.disk, filepath.Join(dir, "ref"))
	if err != nil {
		return content.Status{}, ingestError(dir, err)
	}
	started, err := readNote(s.disk, filepath.Join(dir, "startedat"))
	if err != nil {
		return content.Status{}, ingestError(dir, err)
	}
	var startedAt time.Time
	if err := startedAt.UnmarshalText(started); err != nil {
		return content.Status{}, fmt.Errorf("ingest %s: startedat: %w: %w", dir, err, errdefs.ErrNotFound)
	}
	st := content.Status{Ref: string(ref), Offset: data.Size(), StartedAt: startedAt, UpdatedAt: data.ModTime()}
	if st.UpdatedAt.Before(startedAt) {
		st.UpdatedAt = startedAt // file times are coarser than the clock
	}
	if text, err := readNote(s.disk, filepath.Join(dir, "total")); err == nil {
		// Unreadable means unknown: the total is a check, not a need.
		if total, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			st.Total = max(0, total)
		}
	}
	return st, nil
}

// errNoNote is fs.ErrInvalid, which ingestError takes for "not there".
var errNoNote = fmt.Errorf("not a regular file, or too long: %w", fs.ErrInvalid)

// readNote reads a small file. What is planted there instead of one, a fifo
// for instance, neither hangs nor fills the memory.
func readNote(d Disk, path string) ([]byte, error) {
	f, err := openRead(d, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, errNoNote
	}
	text, err := io.ReadAll(io.LimitReader(f, maxRef+1))
	if err == nil && len(text) > maxRef {
		err = errNoNote
	}
	return text, err
}

func ingestError(dir string, err error) error {
	if isForeign(err) || errors.Is(err, fs.ErrInvalid) {
		return fmt.Errorf("ingest %s: %w", filepath.Base(dir), errdefs.ErrNotFound)
	}
	return fmt.Errorf("ingest: %w", err)
}
