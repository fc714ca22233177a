package containerdconf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/larder-project/larder/plugin/internal/ownfile"
)

const (
	dropInName = "50-larder.toml"
	folderName = "conf.d"
	backupExt  = ".before-larder"
	fileMode   = 0o644
	dirMode    = 0o755
)

// read returns a file's text. ok is false if there is none.
func read(path string) (text string, ok bool, _ error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	return string(data), err == nil, ownfile.Explain(path, err)
}

// write makes path a file with this text, whole and on disk: a crash leaves the old one or the new one. The new one has
// the old one's mode and owner.
func write(path, text string) error {
	mode, uid, gid := fs.FileMode(fileMode), -1, -1
	if fi, err := os.Stat(path); err == nil {
		mode = fi.Mode().Perm()
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(st.Uid), int(st.Gid)
		}
	}
	temp := tempOf(path)
	if err := remove(temp); err != nil {
		return err
	}
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return ownfile.Explain(path, err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Chmod(mode), f.Chown(uid, gid), f.Sync(), f.Close()); err != nil {
		return ownfile.Explain(temp, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return ownfile.Explain(path, err)
	}
	return syncDir(filepath.Dir(path))
}

// tempOf is where a file is written before it is whole: a fixed name, so that the next run finds what a crash left. No
// import pattern matches it.
func tempOf(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".larder-new")
}

// keep gives a file a second name, on disk, which nothing overwrites.
func keep(path string) error {
	if err := os.Link(path, path+backupExt); err != nil {
		return ownfile.Explain(path+backupExt, err)
	}
	return syncDir(filepath.Dir(path))
}

// remove removes a file, on disk. That there is none is no error.
func remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return ownfile.Explain(path, err)
	}
	return syncDir(filepath.Dir(path))
}

// makeFolder makes a folder, on disk, and says whether it was missing.
func makeFolder(path string) (made bool, _ error) {
	if fi, err := os.Stat(path); err == nil && fi.IsDir() {
		return false, nil
	}
	if err := os.MkdirAll(path, dirMode); err != nil {
		return false, ownfile.Explain(path, err)
	}
	return true, syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return ownfile.Explain(path, err)
	}
	return ownfile.Explain(path, ownfile.SyncDir(d))
}

// lock keeps a second run out of the folder that holds containerd's main file.
func lock(dir string) (unlock func(), _ error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, ownfile.Explain(dir, err)
	}
	if err := ownfile.Lock(d, dir); err != nil {
		d.Close()
		return nil, err
	}
	return func() { ownfile.Unlock(d) }, nil
}
