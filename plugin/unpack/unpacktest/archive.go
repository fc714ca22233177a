package unpacktest

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// GoFiles are the folders and files of this machine's Go and of its module cache, of
// some bytes together: sources, programs, tables and pictures, large and small, as
// images have them. A folder comes before what is in it.
func GoFiles(ctx context.Context, size int64) ([]string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	var paths []string
	for _, root := range strings.Fields(string(out)) {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() && !d.IsDir() {
				return err
			}
			fi, err := d.Info()
			if err != nil {
				return err
			}
			if size -= fi.Size(); size < 0 {
				return filepath.SkipAll
			}
			paths = append(paths, path)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("files for layers: %w", err)
		}
	}
	return paths, nil
}

// WriteArchive writes a tar stream of folders and files.
func WriteArchive(to io.Writer, paths []string) error {
	w := tar.NewWriter(to)
	for _, path := range paths {
		if err := addFile(w, path); err != nil {
			return fmt.Errorf("archive %s: %w", path, err)
		}
	}
	return w.Close()
}

func addFile(w *tar.Writer, path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	hdr, err := tar.FileInfoHeader(fi, "")
	if err != nil {
		return err
	}
	hdr.Name = strings.TrimPrefix(path, "/")
	if err := w.WriteHeader(hdr); err != nil || fi.IsDir() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return errors.Join(err, f.Close())
}
