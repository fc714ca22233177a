package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// absent ends a warning about a file that is not there.
const absent = "does not exist"

// Warnings returns what is valid but probably not meant on this machine, one
// sentence each. It reads the file system and changes nothing.
func (c *Config) Warnings() []string {
	var all []string
	if volatile(string(c.Root)) {
		all = append(all, fmt.Sprintf("root: %q is in memory (tmpfs), the store is lost at reboot", c.Root))
	}
	for _, w := range secretWarnings("mirror.secret_file", c.Mirror.SecretFile) {
		if strings.HasSuffix(w, absent) {
			w += "; larder serve needs it, \"larder setup containerd\" makes it"
		}
		all = append(all, w)
	}
	for i, h := range c.Upstream.Hosts {
		all = append(all, secretWarnings(fmt.Sprintf("upstream.hosts[%d].client_key_file", i), h.ClientKeyFile)...)
	}
	return all
}

// secretWarnings says what is wrong with a file that only larder's user should
// read. Empty is no file.
func secretWarnings(key string, file Path) []string {
	if file == "" {
		return nil
	}
	info, err := os.Stat(string(file))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []string{fmt.Sprintf("%s: %q "+absent, key, file)}
	case err != nil:
		return []string{fmt.Sprintf("%s: %q: %v", key, file, reason(err))}
	case info.IsDir():
		return []string{fmt.Sprintf("%s: %q is a folder", key, file)}
	case info.Mode().Perm()&0o077 != 0:
		return []string{fmt.Sprintf("%s: %q has mode %#o, other users can read or change it; use 0600", key, file, info.Mode().Perm())}
	}
	return nil
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
