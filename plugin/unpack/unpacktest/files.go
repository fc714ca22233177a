// Package unpacktest looks at what was unpacked.
package unpacktest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Files says all that can be said of each file below a folder, by its path in it. A
// time is said if it was set: if it is no time of the last hour.
func Files(t testing.TB, root string) map[string]string {
	t.Helper()
	files, firstOf := map[string]string{}, map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("no stat of %s", path)
		}
		said := fmt.Sprintf("%s %d:%d dev %d links %d", fi.Mode(), st.Uid, st.Gid, st.Rdev, st.Nlink)
		if name != "." && time.Since(fi.ModTime()) > time.Hour {
			said += fmt.Sprint(" at ", fi.ModTime().UnixNano())
		}
		if first, seen := firstOf[st.Ino]; seen && !fi.IsDir() {
			said += " is " + first
		}
		firstOf[st.Ino] = name
		content, err := contentOf(path, fi)
		files[name] = said + content + xattrsOf(t, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func contentOf(path string, fi fs.FileInfo) (string, error) {
	switch fi.Mode().Type() {
	case 0:
		data, err := os.ReadFile(path)
		return " " + digest.FromBytes(data).String(), err
	case fs.ModeSymlink:
		to, err := os.Readlink(path)
		return " to " + to, err
	}
	return "", nil
}

func xattrsOf(t testing.TB, path string) (said string) {
	t.Helper()
	names := make([]byte, 4<<10)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(strings.SplitSeq(string(names[:n]), "\x00")) {
		if name == "" {
			continue
		}
		value := make([]byte, 1<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		said += fmt.Sprintf(" %s=%q", name, value[:n])
	}
	return said
}

// Diff says how the files differ that two have unpacked, or nothing.
func Diff(got, want map[string]string) string {
	var b strings.Builder
	for name, is := range want {
		if got[name] != is {
			fmt.Fprintf(&b, "%s is\n%s, want\n%s\n", name, got[name], is)
		}
	}
	for name, is := range got {
		if _, ok := want[name]; !ok {
			fmt.Fprintf(&b, "%s is there: %s\n", name, is)
		}
	}
	return b.String()
}
