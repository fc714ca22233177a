package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

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
	now := s.now()
	err = s.changeFacts(info.Digest, func(r *blobRecord) {
		r.Labels = mergeLabels(r.Labels, info.Labels, fieldpaths)
		r.Updated = now
	})
	if err != nil {
		return content.Info{}, fmt.Errorf("update labels: %w", err)
	}
	s.exposures.relabel(info.Digest, now, func(old map[string]string) map[string]string { return mergeLabels(old, info.Labels, fieldpaths) })
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
func (s *Store) Walk(ctx context.Context, fn content.WalkFunc, filter ...string) error {
	matches, err := filters.ParseAll(filter...)
	if err != nil {
		return fmt.Errorf("walk blobs: %w", err)
	}
	err = s.eachBlob(ctx, func(dgst digest.Digest, fi fs.FileInfo) error {
		info, err := s.info(dgst, fi)
		if err != nil || !matches.Match(content.AdaptInfo(info)) {
			return err
		}
		return fn(info)
	})
	if err != nil {
		return fmt.Errorf("walk blobs: %w", err)
	}
	return nil
}

// eachBlob calls fn for each published blob, in no order.
func (s *Store) eachBlob(ctx context.Context, fn func(digest.Digest, fs.FileInfo) error) error {
	return s.eachName(ctx, func(alg string, e fs.DirEntry) error {
		dgst := digest.NewDigestFromEncoded(digest.Algorithm(alg), e.Name())
		fi, err := s.stat(dgst)
		if errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) {
			return nil // deleted meanwhile, or not a blob
		}
		if err != nil {
			return err
		}
		return fn(dgst, fi)
	})
}

// eachName calls fn for what stands in the folders of the digest algorithms,
// whatever it is, in no order and without a look at it.
func (s *Store) eachName(ctx context.Context, fn func(alg string, e fs.DirEntry) error) error {
	algs, err := readDir(s.disk, s.blobsPath())
	if err != nil {
		return err
	}
	for _, alg := range algs {
		if !alg.IsDir() {
			continue
		}
		err := eachEntry(s.disk, filepath.Join(s.blobsPath(), alg.Name()), func(e fs.DirEntry) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fn(alg.Name(), e)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the folder went meanwhile
			return err
		}
	}
	return nil
}

// Delete removes a blob and what the index knows of it. Whoever reads it goes
// on reading. It returns errdefs.ErrNotFound if there is none.
func (s *Store) Delete(_ context.Context, dgst digest.Digest) error {
	if _, err := s.unlink(dgst); err != nil {
		return err
	}
	return s.index.forget([]digest.Digest{dgst})
}

// unlink removes a blob's file, and returns what it took.
func (s *Store) unlink(dgst digest.Digest) (bytes int64, _ error) {
	path, err := s.blobPath(dgst)
	if err != nil {
		return 0, err
	}
	fi, err := s.stat(dgst)
	if err != nil {
		return 0, err // what is no blob is not ours to delete
	}
	s.usage.changing(dgst, blocksOf(fi))
	if err := s.disk.Remove(path); err != nil {
		s.usage.unchanged(dgst)
		if errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("blob %s: %w", dgst, errdefs.ErrNotFound)
		}
		return 0, fmt.Errorf("delete blob: %w", err)
	}
	s.usage.deleted(dgst, blocksOf(fi))
	return blocksOf(fi), nil
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
