package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Info returns size, times and labels of a published blob, or
// errdefs.ErrNotFound.
func (s *Store) Info(_ context.Context, dgst digest.Digest) (content.Info, error) {
	fi, err := s.stat(dgst)
	if err != nil {
		return content.Info{}, err
	}
	return s.info(dgst, fi)
}

func (s *Store) info(dgst digest.Digest, fi fs.FileInfo) (content.Info, error) {
	facts, err := s.Facts(dgst)
	if err != nil && !errdefs.IsNotFound(err) {
		return content.Info{}, err
	}
	info := content.Info{
		Digest: dgst, Size: fi.Size(), CreatedAt: fi.ModTime(), UpdatedAt: fi.ModTime(), Labels: facts.Labels,
	}
	if facts.Updated.After(info.UpdatedAt) {
		info.UpdatedAt = facts.Updated
	}
	return info, nil
}

// Update changes a blob's labels: all of them, or those that the fieldpaths
// name ("labels" or "labels.<key>").
func (s *Store) Update(_ context.Context, info content.Info, fieldpaths ...string) (content.Info, error) {
	fi, err := s.stat(info.Digest)
	if err != nil {
		return content.Info{}, err
	}
	for _, path := range fieldpaths {
		if path != "labels" && !strings.HasPrefix(path, "labels.") {
			return content.Info{}, fmt.Errorf("update %s: field %q cannot be changed: %w", info.Digest, path, errdefs.ErrInvalidArgument)
		}
	}
	now := time.Now()
	err = s.changeFacts(info.Digest, func(f *Facts) {
		f.Labels = mergeLabels(f.Labels, info.Labels, fieldpaths)
		f.Updated = now
	})
	if err != nil {
		return content.Info{}, fmt.Errorf("update labels: %w", err)
	}
	return s.info(info.Digest, fi)
}

func mergeLabels(old, changed map[string]string, fieldpaths []string) map[string]string {
	merged := map[string]string{}
	replace := len(fieldpaths) == 0
	for _, path := range fieldpaths {
		replace = replace || path == "labels"
	}
	if replace {
		old, fieldpaths = changed, nil
	}
	for k, v := range old {
		merged[k] = v
	}
	for _, path := range fieldpaths {
		key := strings.TrimPrefix(path, "labels.")
		merged[key] = changed[key]
	}
	for k, v := range merged {
		if v == "" { // containerd's way to remove a label
			delete(merged, k)
		}
	}
	return merged
}

// Walk calls fn for each published blob that matches one of the filters (all
// without filters). Files that are no blobs are passed over.
func (s *Store) Walk(ctx context.Context, fn content.WalkFunc, fs ...string) error {
	filter, err := filters.ParseAll(fs...)
	if err != nil {
		return fmt.Errorf("walk blobs: %w", err)
	}
	root := filepath.Join(s.root, "blobs")
	algs, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("walk blobs: %w", err)
	}
	for _, alg := range algs {
		if !alg.IsDir() {
			continue
		}
		files, err := os.ReadDir(filepath.Join(root, alg.Name()))
		if err != nil {
			return fmt.Errorf("walk blobs: %w", err)
		}
		for _, file := range files {
			if err := ctx.Err(); err != nil {
				return err
			}
			info, err := s.Info(ctx, digest.NewDigestFromEncoded(digest.Algorithm(alg.Name()), file.Name()))
			if errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) {
				continue // deleted meanwhile, or not a blob
			}
			if err != nil {
				return err
			}
			if !filter.Match(content.AdaptInfo(info)) {
				continue
			}
			if err := fn(info); err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete removes a blob and what the index knows of it. Whoever reads it goes
// on reading. It returns errdefs.ErrNotFound if there is none.
func (s *Store) Delete(_ context.Context, dgst digest.Digest) error {
	path, err := s.blobPath(dgst)
	if err != nil {
		return err
	}
	if _, err := s.stat(dgst); err != nil {
		return err // what is no blob is not ours to delete
	}
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("blob %s: %w", dgst, errdefs.ErrNotFound)
		}
		return fmt.Errorf("delete blob: %w", err)
	}
	return s.index.forget(dgst)
}

// blobReaderAt is a Blob as content.ReaderAt.
type blobReaderAt struct{ *Blob }

// Size returns the blob's size in bytes.
func (r blobReaderAt) Size() int64 { return r.size }

// ReaderAt opens a published blob for random access, or returns
// errdefs.ErrNotFound. Only the descriptor's digest counts.
func (s *Store) ReaderAt(_ context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	b, err := s.Open(desc.Digest)
	if err != nil {
		return nil, err
	}
	return blobReaderAt{b}, nil
}
