package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Warnings returns what is valid but probably not meant on this machine, one
// sentence each. It reads the file system and changes nothing.
func (c *Config) Warnings() []string {
	var all []string
	if volatile(string(c.Root)) {
		all = append(all, fmt.Sprintf("root: %q is in memory (tmpfs), the store is lost at reboot", c.Root))
	}
	if c.Mirror.SecretFile == "" {
		return all
	}
	info, err := os.Stat(string(c.Mirror.SecretFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		all = append(all, fmt.Sprintf("mirror.secret_file: %q does not exist", c.Mirror.SecretFile))
	case err != nil:
		all = append(all, fmt.Sprintf("mirror.secret_file: %q: %v", c.Mirror.SecretFile, reason(err)))
	case info.IsDir():
		all = append(all, fmt.Sprintf("mirror.secret_file: %q is a folder", c.Mirror.SecretFile))
	case info.Mode().Perm()&0o077 != 0:
		all = append(all, fmt.Sprintf("mirror.secret_file: %q has mode %#o, other users can read or change it; use 0600", c.Mirror.SecretFile, info.Mode().Perm()))
	}
	return all
}

// volatile reports whether a folder, or the nearest one above it that exists,
// is on tmpfs.
func volatile(folder string) bool {
	for {
		var st unix.Statfs_t
		if err := unix.Statfs(folder, &st); err == nil {
			return st.Type == unix.TMPFS_MAGIC
		}
		up := filepath.Dir(folder)
		if up == folder {
			return false
		}
		folder = up
	}
}
