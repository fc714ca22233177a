package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// newFileMode is for a configuration file that did not exist: it holds paths of
// secrets, and no secrets.
const newFileMode = 0o644

// Append adds text, tables of their own, to the end of a configuration file.
// What is in the file stays as it is, comments included. The file is replaced
// as a whole, with its mode and owner, and only by one that Load accepts, and
// check, which may be nil; after an error it is as it was. A file that does not exist is made. Another
// Append that runs at the same time is errdefs.ErrUnavailable.
func Append(file string, text []byte, check func(*Config) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: nothing added: %w", file, err)
		}
	}()
	// A link stays a link.
	target, err := filepath.EvalSymlinks(file)
	if errors.Is(err, fs.ErrNotExist) {
		target, err = file, nil
	}
	if err != nil {
		return reason(err)
	}
	folder, err := lockFolder(filepath.Dir(target))
	if err != nil {
		return err
	}
	defer folder.Close()
	temp, err := writeAppended(target, text)
	if err != nil {
		return err
	}
	defer os.Remove(temp) // gone by then if all went well
	c, err := Load(temp)
	if err == nil && check != nil {
		err = check(c)
	}
	if err != nil {
		return fmt.Errorf("the result would not be valid: %w", placed(err, target))
	}
	if err := os.Rename(temp, target); err != nil {
		return err
	}
	return folder.Sync()
}

// lockFolder keeps other Appends off the files of a folder until it is closed.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("another larder changes a file there, try again: %w", errdefs.ErrUnavailable)
	}
	return nil, fmt.Errorf("lock %s: %w", dir, err)
}

// writeAppended writes the result beside the file, on disk when it returns.
func writeAppended(target string, text []byte) (temp string, err error) {
	old, info, err := readRegular(target)
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp(filepath.Dir(target), "."+filepath.Base(target)+".*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(joinText(old, text)); err != nil {
		return "", err
	}
	mode := fs.FileMode(newFileMode)
	if info != nil {
		mode = info.Mode().Perm()
		if err := keepOwner(f, info); err != nil {
			return "", err
		}
	}
	if err := f.Chmod(mode); err != nil { // after chown, which may take bits away
		return "", err
	}
	return f.Name(), f.Sync()
}

// readRegular reads a file; info is nil if there is none.
func readRegular(file string) (data []byte, info fs.FileInfo, err error) {
	info, err = os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, invalid("is no regular file")
	}
	data, err = read(file)
	return data, info, err
}

// keepOwner gives the new file the owner of the old one.
func keepOwner(f *os.File, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	now, err := f.Stat()
	if err != nil {
		return err
	}
	if own, ok := now.Sys().(*syscall.Stat_t); ok && own.Uid == st.Uid && own.Gid == st.Gid {
		return nil
	}
	if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("it belongs to another user and would not any more; run as root: %w", err)
	}
	return nil
}

// joinText puts an empty line between what is there and what is added.
func joinText(old, text []byte) []byte {
	if len(old) == 0 {
		return text
	}
	if !bytes.HasSuffix(old, []byte("\n")) {
		old = append(old, '\n')
	}
	return bytes.Join([][]byte{old, text}, []byte("\n"))
}

// placed says of the problems of a temporary file that they are of another.
func placed(err error, file string) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var problems []*Error
	for _, one := range joined.Unwrap() {
		p, ok := errors.AsType[*Error](one)
		if !ok {
			return err
		}
		own := *p
		own.File = file
		problems = append(problems, &own)
	}
	return join(problems)
}
