package credentials

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

// files are the secret files of rules. They are read for each use: that is
// cheap, and right even where Kubernetes swaps symlinks under a mounted
// Secret. While one cannot be read, its last content is used.
type files struct {
	rules rules
	log   *reporter

	mu   sync.Mutex
	last map[string]upstream.Credential // by path: as many as there are rules
	told map[string]bool                // by path: that others can read it
}

func newFiles(rs rules, log *reporter) *files {
	return &files{rules: rs, log: log, last: map[string]upstream.Credential{}, told: map[string]bool{}}
}

// find implements source.
func (s *files) find(_ context.Context, q query) (answer, error) {
	path := s.rules.match(q).File
	if path == "" {
		return answer{}, nil
	}
	cred, err := s.read(path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.last[path] = cred
		return answer{credential: cred}, nil
	}
	if old, ok := s.last[path]; ok {
		s.log.warn("stale "+path+err.Error(), "credential not renewed, the old one is used", "source", "credential_file", "err", err)
		return answer{credential: old}, nil
	}
	return answer{}, err
}

func (s *files) read(path string) (upstream.Credential, error) {
	text, mode, err := readFile(path, maxSecret)
	if err != nil {
		return upstream.Credential{}, fmt.Errorf("credential_file %s: %w", path, err)
	}
	s.mu.Lock()
	tell := mode.Perm()&0o077 != 0 && !s.told[path]
	s.told[path] = s.told[path] || tell
	s.mu.Unlock()
	if tell {
		// No more than that: Kubernetes mounts Secrets 0644 in a folder that
		// is closed to others.
		s.log.log.Warn("credential_file can be read or changed by other users unless its folder is closed to them; use mode 0600", "path", path, "mode", fmt.Sprintf("%#o", mode.Perm()))
	}
	cred, err := parseSecret(text)
	if err != nil {
		return upstream.Credential{}, fmt.Errorf("credential_file %s: %w", path, err)
	}
	return cred, nil
}

// readFile reads a regular file of at most limit bytes. Its errors wrap an
// errdefs kind and do not repeat the path.
func readFile(path string, limit int64) ([]byte, fs.FileMode, error) {
	info, err := os.Stat(path) // before it is opened: a FIFO would block
	if err != nil {
		return nil, 0, fileError(err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("not a regular file: %w", errdefs.ErrInvalidArgument)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fileError(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, 0, fileError(err)
	}
	if int64(len(text)) > limit {
		return nil, 0, fmt.Errorf("more than %d bytes: %w", limit, errdefs.ErrInvalidArgument)
	}
	return text, info.Mode(), nil
}

// fileError gives an error of the file system its kind.
func fileError(err error) error {
	var kind error = errdefs.ErrUnavailable
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind = errdefs.ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		kind = errdefs.ErrPermissionDenied
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return fmt.Errorf("%w: %w", err, kind)
}

// tellMissing logs at start what would fail every pull of a rule.
func (s *files) tellMissing() {
	for _, r := range s.rules {
		if r.File == "" {
			continue
		}
		if _, err := s.read(r.File); err != nil {
			s.log.log.Warn("no credential yet for the upstream of a rule, its pulls fail until there is one", "upstream", r.Host, "err", err)
		}
	}
}
