package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// storeSize is what a store's folder takes.
type storeSize struct {
	inodes, blocks, index float64
}

// sizeOf counts a folder's inodes and blocks; the index is larder's alone.
func sizeOf(root string) (size storeSize, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // an ingest that has ended
		}
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: no inode", path)
		}
		size.inodes++
		size.blocks += float64(stat.Blocks * 512)
		if strings.HasSuffix(path, string(os.PathSeparator)+"index.db") {
			size.index += float64(stat.Blocks * 512)
		}
		return nil
	})
	if err != nil {
		return size, fmt.Errorf("size of a store: %w", err)
	}
	return size, nil
}
