package hosts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/plugin/internal/ownfile"
)

// UndoOptions says where Undo works and how far it goes.
type UndoOptions struct {
	// CertsDir is containerd's config_path; "" means DefaultCertsDir.
	CertsDir string
	// Force takes away files of larder's own even when they were changed by hand.
	Force bool
}

// Undo takes away every hosts.toml that Apply wrote below o.CertsDir, puts back those that were there before, and
// removes the folders that Apply made and that hold nothing else. It returns what it did; files that larder has
// nothing to do with are not mentioned. A certs.d that does not exist is no error. A cancelled ctx stops it between
// two files; running it again finishes.
//
// The error wraps errdefs.ErrPermissionDenied when larder may not write there, errdefs.ErrUnavailable when another
// run is at work, and errdefs.ErrFailedPrecondition when all was done but for the files it names.
func Undo(ctx context.Context, o UndoOptions) ([]Change, error) {
	if o.CertsDir == "" {
		o.CertsDir = DefaultCertsDir
	}
	c, err := openCertsDir(filepath.Clean(o.CertsDir), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer c.close()
	names, err := c.folders()
	if err != nil {
		return nil, err
	}
	targets := make([]target, len(names))
	for i, name := range names {
		targets[i] = target{host: hostOfDirectory(name), dir: name}
	}
	changes, err := each(ctx, targets, func(t target) (*Change, error) { return c.undo(t, o.Force) })
	if err == nil && c.made {
		// os.Remove never takes a folder that holds something.
		if err := os.Remove(c.path); err != nil && !isNotEmpty(err) {
			return changes, ownfile.Explain(c.path, err)
		}
	}
	return changes, err
}

// undo handles one folder; nil, nil means that it is none of larder's business.
func (c *certsDir) undo(t target, force bool) (*Change, error) {
	e, err := c.look(t.dir)
	if errdefs.IsFailedPrecondition(err) {
		return nil, nil // larder never writes there
	}
	if err != nil {
		return nil, err
	}
	if err := c.removeIfThere(path.Join(t.dir, tempName)); err != nil {
		return nil, err
	}
	ch := &Change{Host: t.host, Path: c.hostsFile(t.dir), Action: ActionLeft}
	switch {
	case e.hosts == nil && e.backup == nil, e.hosts != nil && !e.mark.ours && e.backup == nil:
		return nil, nil
	case e.hosts != nil && e.backup != nil && os.SameFile(e.hosts, e.backup):
		// A crash between link and rename. A rename between two names of one file would do nothing.
		ch.Action = ActionRestored
		return ch, errors.Join(c.removeIfThere(path.Join(t.dir, backupName)), c.sync(t.dir))
	case e.hosts != nil && !e.mark.ours:
		return ch, fmt.Errorf("%s: larder did not write it, so %s cannot be put back; move one of the two away: %w",
			ch.Path, c.abs(path.Join(t.dir, backupName)), errdefs.ErrFailedPrecondition)
	case e.mark.edited && !force:
		return ch, fmt.Errorf("%s: larder wrote it and it was changed by hand since, so it is left alone; --force removes it: %w",
			ch.Path, errdefs.ErrFailedPrecondition)
	case e.backup != nil:
		ch.Action = ActionRestored
		return ch, c.restoreFile(t.dir)
	}
	c.made = c.made || e.mark.madeCertsDir
	ch.Action = ActionRemoved
	return ch, c.removeOurs(t.dir, e.mark.madeFolder)
}

// removeOurs removes dir's hosts.toml, with the folder if larder made it and nothing else is in it.
func (c *certsDir) removeOurs(dir string, withFolder bool) error {
	if withFolder {
		if gone, err := c.removeFolder(dir); gone || err != nil {
			return err
		}
	}
	if err := c.removeIfThere(path.Join(dir, hostsName)); err != nil {
		return err
	}
	return c.sync(dir)
}

func isNotEmpty(err error) bool {
	return errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST)
}
