package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/plugin/internal/ownfile"
)

// State is what Apply finds where a file is to go.
type State string

// The states of a file.
const (
	StateNew      State = "new"      // there is none
	StateSame     State = "same"     // it is already as wanted
	StateUpdate   State = "update"   // larder wrote it, and it says or permits something else by now
	StateForeign  State = "foreign"  // somebody else's; it will be kept as hosts.toml.before-larder
	StateEdited   State = "edited"   // larder's, but changed by hand: left alone without Options.Force
	StateConflict State = "conflict" // somebody else's, while another file is already kept: left alone
)

// File is one hosts.toml as larder wants it.
type File struct {
	// Host is the registry host, or DefaultHost.
	Host string `json:"host"`
	// Path is where the file goes.
	Path string `json:"path"`
	// State is what stands there now.
	State State `json:"state"`
	// Content is the text wanted there. It holds the node secret if there is one.
	Content string `json:"content"`
}

// Plan returns what Apply would write, and changes nothing. The files come back even beside an error that wraps
// errdefs.ErrFailedPrecondition, which tells of the ones that Apply would refuse.
func Plan(o Options) ([]File, error) {
	o, err := o.applyDefaultsAndValidate()
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(o.CertsDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return planEmpty(o), nil
	case err != nil:
		return nil, ownfile.Explain(o.CertsDir, err)
	}
	defer root.Close()
	c := &certsDir{root: root, path: o.CertsDir}
	targets, err := c.targets(o)
	if err != nil {
		return nil, err
	}
	var files []File
	var refused []error
	for _, t := range targets {
		e, err := c.look(t.dir)
		switch {
		case errdefs.IsFailedPrecondition(err):
			refused = append(refused, err)
			continue
		case err != nil:
			return nil, err
		}
		f := c.plan(t, e, o)
		files = append(files, f)
		if err := refusal(f, o.Force); err != nil {
			refused = append(refused, err)
		}
	}
	return files, errors.Join(refused...)
}

// planEmpty is the plan for a certs.d that does not exist yet.
func planEmpty(o Options) []File {
	c := &certsDir{path: o.CertsDir, made: true}
	var files []File
	for _, host := range o.Registries {
		t := target{host: host, dir: hostDirectory(host)}
		if !slices.ContainsFunc(files, func(f File) bool { return f.Path == c.hostsFile(t.dir) }) {
			files = append(files, c.plan(t, entry{}, o))
		}
	}
	return files
}

// target is a registry host and its folder below certs.d.
type target struct{ host, dir string }

// targets returns the folders to write: those of o.Registries, then those that larder wrote earlier.
func (c *certsDir) targets(o Options) ([]target, error) {
	var all []target
	add := func(t target) {
		if !slices.ContainsFunc(all, func(u target) bool { return u.dir == t.dir }) {
			all = append(all, t)
		}
	}
	for _, host := range o.Registries {
		dir := hostDirectory(host)
		// containerd also takes a folder named with the colon, but only where the other is absent: writing
		// a second one would hide the certificates in the first.
		if dir != host && !c.exists(dir) && c.exists(host) {
			dir = host
		}
		add(target{host: host, dir: dir})
	}
	names, err := c.folders()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		e, err := c.look(name)
		if err == nil && e.mark.ours {
			add(target{host: hostOfDirectory(name), dir: name})
		}
	}
	return all, nil
}

// plan says what t's file should hold and how that compares to e, which stands there.
func (c *certsDir) plan(t target, e entry, o Options) File {
	f := File{Host: t.host, Path: c.hostsFile(t.dir), Content: render(settings{
		server: serverOf(t.host), mirror: o.MirrorURL, secret: o.Secret,
		ca: e.ca, client: e.client,
		madeFolder:   !e.folder || e.mark.madeFolder,
		madeCertsDir: c.made || e.mark.madeCertsDir,
	})}
	switch {
	case e.hosts == nil:
		f.State = StateNew
	case !e.mark.ours && e.backup != nil && !os.SameFile(e.hosts, e.backup):
		f.State = StateConflict
	case !e.mark.ours:
		f.State = StateForeign
	case e.mark.edited:
		f.State = StateEdited
	case e.text != f.Content || e.hosts.Mode().Perm() != fileMode:
		f.State = StateUpdate
	default:
		f.State = StateSame
	}
	return f
}

// refusal returns why f cannot be written, or nil.
func refusal(f File, force bool) error {
	switch {
	case f.State == StateEdited && !force:
		return fmt.Errorf("%s: larder wrote it and it was changed by hand since, so it is left alone; --force overwrites it: %w",
			f.Path, errdefs.ErrFailedPrecondition)
	case f.State == StateConflict:
		return fmt.Errorf("%s: larder did not write it, and %s is already kept for another such file; move one of the two away: %w",
			f.Path, filepath.Join(filepath.Dir(f.Path), backupName), errdefs.ErrFailedPrecondition)
	}
	return nil
}
