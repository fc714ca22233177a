package containerdconf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"

	"github.com/larder-project/larder/plugin/internal/ownfile"
)

// Present tells the mode that containerd's configuration is set up for, and the socket at which it asks larder: Mirror
// and none, where larder has nothing in it.
func Present(config string) (mode Mode, socket string, _ error) {
	path, text, err := findDropIn(config)
	if err != nil || path == "" {
		return Mirror, "", err
	}
	var doc document
	if err := toml.Unmarshal([]byte(text), &doc); err == nil { // else it was changed by hand
		socket = doc.Proxies[diffName].Address
	}
	return parseDropIn(text).mode, socket, nil
}

// findDropIn finds larder's drop-in, path "" if there is none. A main file that cannot be read does not hide it.
func findDropIn(config string) (path, text string, _ error) {
	candidates := []string{filepath.Join(filepath.Dir(config), folderName, dropInName)}
	if main, ok, err := read(config); err == nil && ok {
		var doc struct {
			Imports []string `toml:"imports"`
		}
		if toml.Unmarshal([]byte(main), &doc) == nil {
			if found := reached(config, doc.Imports); found != "" {
				candidates = append(candidates, found)
			}
		}
	}
	for _, path := range candidates {
		text, there, err := read(path)
		if err != nil {
			return "", "", err
		}
		if ours, _ := fileMark.Parse(text); there && ours {
			return path, text, nil
		}
	}
	return "", "", nil
}

// Undo takes larder's drop-in out of containerd's configuration, and the line that it needed. It runs no program, so
// that it works when containerd is broken. It refuses while containerd has content in larder alone, or runs. Running it again
// finishes what was ended. Of o it needs Config, Force and Forget.
func Undo(_ context.Context, o Options) ([]Change, error) {
	dir := filepath.Dir(o.Config)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	path, text, err := findDropIn(o.Config)
	if err != nil {
		return nil, err
	}
	for _, file := range []string{o.Config, cmp.Or(path, filepath.Join(dir, folderName, dropInName))} {
		if err := remove(tempOf(file)); err != nil {
			return nil, err
		}
	}
	var changes []Change
	if path != "" {
		if err := undoDropIn(path, text, o); err != nil {
			return nil, err
		}
		changes = append(changes, Change{Path: path, Action: ActionRemoved})
	}
	change, err := undoMain(o.Config, o.Force)
	if change != nil {
		changes = append(changes, *change)
	}
	if err == nil && path != "" && parseDropIn(text).madeFolder {
		_ = os.Remove(filepath.Dir(path)) // if it is empty
	}
	return changes, err
}

func undoDropIn(path, text string, o Options) error {
	d := parseDropIn(text)
	if _, edited := fileMark.Parse(text); edited && !o.Force {
		return fmt.Errorf("%s: larder wrote it and it was changed by hand since, so it is left alone; --force removes it: %w", path, errdefs.ErrFailedPrecondition)
	}
	if d.mode == Proxy && !o.Forget {
		if err := leaving(d.root); err != nil {
			return err
		}
	}
	return remove(path)
}

// undoMain takes larder's line out of the main file; nil, nil means that there is none. It stays where it has become the
// way to files of others.
func undoMain(config string, force bool) (*Change, error) {
	text, there, err := read(config)
	if err != nil || !there {
		return nil, err
	}
	ours, edited := fileMark.Parse(text)
	before, has := withoutLine(text)
	if !ours && !has {
		return nil, dropBackup(config)
	}
	others, _ := filepath.Glob(filepath.Join(filepath.Dir(config), folderName, "*.toml"))
	change := &Change{Path: config, Action: ActionLeft}
	switch {
	case len(others) > 0:
		change.Why = "it imports files of others: " + strings.Join(others, ", ")
		return change, nil
	case ours && edited && !force:
		return change, fmt.Errorf("%s: larder wrote it and it was changed by hand since, so it is left alone; --force removes it: %w", config, errdefs.ErrFailedPrecondition)
	case ours:
		change.Action = ActionRemoved
		return change, remove(config)
	}
	kept, err := restoreMain(config, before)
	if change.Action = ActionRestored; kept {
		change.Backup, change.Why = config+backupExt, "it was changed since, so its older text is kept beside it"
	}
	return change, err
}

// restoreMain makes text the main file, by the file that was kept if that has it. kept says that this is there still.
func restoreMain(path, text string) (kept bool, _ error) {
	old, there, err := read(path + backupExt)
	if err != nil {
		return false, err
	}
	if !there || old != text {
		return there, write(path, text)
	}
	if err := dropBackup(path); err != nil { // a rename between two names of one file would do nothing
		return true, err
	}
	if _, err := os.Lstat(path + backupExt); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err := os.Rename(path+backupExt, path); err != nil {
		return true, ownfile.Explain(path, err)
	}
	return false, syncDir(filepath.Dir(path))
}

// dropBackup takes away the second name of a main file that was not changed: a run was ended between the two.
func dropBackup(path string) error {
	is, err := os.Stat(path)
	if err != nil {
		return ownfile.Explain(path, err)
	}
	if kept, err := os.Stat(path + backupExt); err == nil && os.SameFile(is, kept) {
		return remove(path + backupExt)
	}
	return nil
}
