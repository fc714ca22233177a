package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"
)

// checkRoot refuses a store's folder that anyone may write into. What is stored is
// served without being hashed again: who may put files there decides what runs.
func checkRoot(root string) error {
	fi, err := os.Stat(root)
	switch {
	case errors.Is(err, fs.ErrNotExist): // it will be made, for its owner alone
		return nil
	case err != nil:
		return fmt.Errorf("root: %w", err)
	case fi.Mode().Perm()&0o002 != 0:
		return fmt.Errorf("root: %s has mode %04o, anyone may put files into it; chmod it to 0700: %w",
			root, fi.Mode().Perm(), errdefs.ErrFailedPrecondition)
	}
	return nil
}
