package hosts

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/plugin/internal/ownfile"
)

// maxHostsFile bounds what is read of a hosts.toml; a longer one is surely not larder's.
const maxHostsFile = 1 << 20

// entry is what stands in one registry host's folder.
type entry struct {
	folder        bool        // it exists
	hosts, backup fs.FileInfo // nil: no such file
	text          string      // of hosts, if it is a regular file
	mark          mark
	ca            []string
	client        [][2]string
}

// look reads the folder dir. A folder or file that larder must not write through gives an error that wraps
// errdefs.ErrFailedPrecondition.
func (c *certsDir) look(dir string) (entry, error) {
	var e entry
	info, err := c.lstat(dir)
	if err != nil || info == nil {
		return e, err
	}
	if !info.IsDir() {
		return e, fmt.Errorf("%s: not a folder but a %s, and larder writes only into real folders; replace it by one: %w",
			c.abs(dir), kind(info), errdefs.ErrFailedPrecondition)
	}
	e.folder = true
	if e.hosts, err = c.lstat(path.Join(dir, hostsName)); err != nil {
		return e, err
	}
	if e.backup, err = c.lstat(path.Join(dir, backupName)); err != nil {
		return e, err
	}
	switch {
	case e.hosts == nil || e.hosts.Mode().Type() == fs.ModeSymlink:
		// A link is somebody else's in any case. It is kept as the link it is, and never followed.
	case e.hosts.Mode().IsRegular():
		if e.text, err = c.read(path.Join(dir, hostsName)); err != nil {
			return e, err
		}
		e.mark = parseMark(e.text)
	default:
		return e, fmt.Errorf("%s: not a file but a %s; move it away: %w",
			c.hostsFile(dir), kind(e.hosts), errdefs.ErrFailedPrecondition)
	}
	return e, c.findCertificates(dir, &e)
}

// findCertificates adds the files that containerd would use by itself if there were no hosts.toml: *.crt are
// CAs, *.cert client certificates with the key in *.key beside it or in the same file.
func (c *certsDir) findCertificates(dir string, e *entry) error {
	names, err := c.names(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".crt") {
			e.ca = append(e.ca, name)
		}
		base, found := strings.CutSuffix(name, ".cert")
		if !found {
			continue
		}
		key := name
		if info, err := c.lstat(path.Join(dir, base+".key")); err != nil {
			return err
		} else if info != nil {
			key = base + ".key"
		}
		e.client = append(e.client, [2]string{name, key})
	}
	return nil
}

// lstat returns nil without an error for a name that does not exist.
func (c *certsDir) lstat(name string) (fs.FileInfo, error) {
	info, err := c.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, ownfile.Explain(c.abs(name), err)
	}
	return info, nil
}

func (c *certsDir) exists(name string) bool {
	info, err := c.lstat(name)
	return err == nil && info != nil
}

func (c *certsDir) read(name string) (string, error) {
	f, err := c.root.Open(name)
	if err != nil {
		return "", ownfile.Explain(c.abs(name), err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxHostsFile))
	if err != nil {
		return "", ownfile.Explain(c.abs(name), err)
	}
	return string(data), nil
}

// names lists a folder in order; subfolders are left out.
func (c *certsDir) names(dir string) ([]string, error) {
	return c.list(dir, func(d fs.DirEntry) bool { return !d.IsDir() })
}

// folders lists the folders that may be a registry host's.
func (c *certsDir) folders() ([]string, error) {
	return c.list(".", func(d fs.DirEntry) bool { return d.IsDir() && d.Name() != stagingName })
}

func (c *certsDir) list(dir string, want func(fs.DirEntry) bool) ([]string, error) {
	all, err := fs.ReadDir(c.root.FS(), dir)
	if err != nil {
		return nil, ownfile.Explain(c.abs(dir), err)
	}
	var names []string
	for _, d := range all {
		if want(d) {
			names = append(names, d.Name())
		}
	}
	return names, nil
}

func kind(info fs.FileInfo) string {
	switch info.Mode().Type() {
	case 0:
		return "file"
	case os.ModeDir:
		return "folder"
	case os.ModeSymlink:
		return "symbolic link"
	default:
		return "special file"
	}
}
