package disks

import (
	"errors"
	"io"
	"os"
)

// Image copies the medium into a new file, without what is in the buffer.
func (d *Drive) Image(path string) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := copySparse(path, d.medium); err != nil {
		d.t.Fatal(err)
	}
}

// copySparse leaves out what is zero.
func copySparse(path string, from *os.File) error {
	to, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer to.Close()
	fi, err := from.Stat()
	if err != nil {
		return err
	}
	buf, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); at < fi.Size(); at += int64(len(buf)) {
		n, err := from.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if string(buf[:n]) == string(zero[:n]) {
			continue
		}
		if _, err := to.WriteAt(buf[:n], at); err != nil {
			return err
		}
	}
	return to.Truncate(fi.Size())
}

// Replay makes a copy of an image and lays the first n operations of a log over
// it, and of those after the last flush among them only the ones that keep
// chooses: a drive writes its buffer in whatever order it likes.
func Replay(to, image string, log []Op, n int, keep func(i int) bool) error {
	from, err := os.Open(image)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := copySparse(to, from); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	flushed := -1
	for i, op := range log[:n] {
		if op.Data == nil {
			flushed = i
		}
	}
	for i, op := range log[:n] {
		if op.Data == nil || i > flushed && !keep(i) {
			continue
		}
		if _, err := f.WriteAt(op.Data, op.Offset); err != nil {
			return err
		}
	}
	return nil
}
