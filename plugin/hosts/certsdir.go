package hosts

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/plugin/internal/ownfile"
)

const (
	hostsName  = "hosts.toml"
	backupName = "hosts.toml.before-larder"
	// tempName and stagingName are fixed, so that the next run finds what a crash left; the lock makes that safe.
	tempName    = ".hosts.toml.larder-new"
	stagingName = ".larder-staging"

	fileMode = 0o600
	dirMode  = 0o755
)

// certsDir is an open certs.d. All names given to its methods are relative to it, and os.Root keeps what they
// reach below it.
type certsDir struct {
	root *os.Root
	path string
	made bool     // by this run
	lock *os.File // held while not nil
}

// openCertsDir opens path for writing: alone, and with what a crashed run left in staging taken away. Without
// create, a folder that does not exist gives fs.ErrNotExist.
func openCertsDir(path string, create bool) (_ *certsDir, err error) {
	c := &certsDir{path: path}
	if create {
		if c.made, err = makeCertsDir(path); err != nil {
			return nil, err
		}
	}
	if c.root, err = os.OpenRoot(path); err != nil {
		return nil, ownfile.Explain(path, err)
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	d, err := c.root.Open(".")
	if err != nil {
		return nil, ownfile.Explain(path, err)
	}
	if err := ownfile.Lock(d, path); err != nil {
		d.Close()
		return nil, err
	}
	c.lock = d
	return c, c.clearStaging()
}

// makeCertsDir makes path and what is missing above it, and tells whether path itself was missing.
func makeCertsDir(path string) (made bool, err error) {
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return false, ownfile.Explain(filepath.Dir(path), err)
	}
	err = os.Mkdir(path, dirMode)
	switch {
	case errors.Is(err, fs.ErrExist):
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return false, ownfile.Explain(path, unix.ENOTDIR)
		}
		return false, nil
	case err != nil:
		return false, ownfile.Explain(path, err)
	}
	if err := os.Chmod(path, dirMode); err != nil { // whatever the umask is
		return true, ownfile.Explain(path, err)
	}
	parent, err := os.Open(filepath.Dir(path))
	if err == nil {
		err = ownfile.SyncDir(parent)
	}
	return true, ownfile.Explain(filepath.Dir(path), err)
}

func (c *certsDir) close() {
	if c.lock != nil {
		ownfile.Unlock(c.lock)
	}
	c.root.Close()
}

func (c *certsDir) abs(name string) string { return filepath.Join(c.path, name) }

func (c *certsDir) hostsFile(dir string) string { return filepath.Join(c.path, dir, hostsName) }

// clearStaging takes away what a crash left there: the hosts.toml of a folder that was about to appear or had
// just disappeared. Anything else in it is not larder's and stops the run.
func (c *certsDir) clearStaging() error {
	if err := c.removeIfThere(path.Join(stagingName, hostsName)); err != nil {
		return err
	}
	return c.removeIfThere(stagingName)
}

func (c *certsDir) removeIfThere(name string) error {
	err := c.root.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return ownfile.Explain(c.abs(name), err)
}

// makeFolder makes dir with its hosts.toml in one step, as containerd sees it.
func (c *certsDir) makeFolder(dir, content string) error {
	if err := c.root.Mkdir(stagingName, dirMode); err != nil {
		return ownfile.Explain(c.abs(stagingName), err)
	}
	if err := c.root.Chmod(stagingName, dirMode); err != nil { // whatever the umask is
		return ownfile.Explain(c.abs(stagingName), err)
	}
	if err := c.write(path.Join(stagingName, hostsName), content); err != nil {
		return err
	}
	if err := c.sync(stagingName); err != nil {
		return err
	}
	if err := c.root.Rename(stagingName, dir); err != nil {
		return ownfile.Explain(c.abs(dir), err)
	}
	return c.sync(".")
}

// removeFolder takes dir away, hosts.toml and all, in one step as containerd sees it: a folder left empty
// by a crash would hide _default. It does nothing and reports false when the folder holds other things.
func (c *certsDir) removeFolder(dir string) (bool, error) {
	all, err := c.list(dir, func(fs.DirEntry) bool { return true })
	if err != nil || len(all) != 1 || all[0] != hostsName {
		return false, err
	}
	if err := c.root.Rename(dir, stagingName); err != nil {
		return false, ownfile.Explain(c.abs(dir), err)
	}
	if err := c.sync("."); err != nil {
		return false, err
	}
	if err := c.clearStaging(); err != nil {
		return false, err
	}
	return true, c.sync(".")
}

// replaceFile puts content in place of dir's hosts.toml. keep links the present one to the backup's name first,
// which cannot overwrite one that is there; between the two steps both names stand for the same file.
func (c *certsDir) replaceFile(dir, content string, keep bool) error {
	temp := path.Join(dir, tempName)
	if err := c.removeIfThere(temp); err != nil {
		return err
	}
	if err := c.write(temp, content); err != nil {
		return err
	}
	if keep {
		if err := c.root.Link(path.Join(dir, hostsName), path.Join(dir, backupName)); err != nil {
			return ownfile.Explain(c.abs(path.Join(dir, backupName)), err)
		}
		if err := c.sync(dir); err != nil {
			return err
		}
	}
	if err := c.root.Rename(temp, path.Join(dir, hostsName)); err != nil {
		return ownfile.Explain(c.hostsFile(dir), err)
	}
	return c.sync(dir)
}

// restoreFile puts dir's kept file back in place of hosts.toml, if there is one.
func (c *certsDir) restoreFile(dir string) error {
	if err := c.root.Rename(path.Join(dir, backupName), path.Join(dir, hostsName)); err != nil {
		return ownfile.Explain(c.hostsFile(dir), err)
	}
	return c.sync(dir)
}

// write makes the new file name and returns when its content is on the disk.
func (c *certsDir) write(name, content string) error {
	f, err := c.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	if err != nil {
		return ownfile.Explain(c.abs(name), err)
	}
	return ownfile.Explain(c.abs(name), writeSync(f, []byte(content)))
}

// sync returns when the names in dir are on the disk.
func (c *certsDir) sync(dir string) error {
	d, err := c.root.Open(dir)
	if err != nil {
		return ownfile.Explain(c.abs(dir), err)
	}
	return ownfile.Explain(c.abs(dir), ownfile.SyncDir(d))
}

// writeSync writes data to f, syncs and closes it.
func writeSync(f *os.File, data []byte) error {
	_, err := f.Write(data)
	return errors.Join(err, f.Chmod(fileMode), f.Sync(), f.Close())
}
