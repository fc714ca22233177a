package hosts

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// Action is what was done to a file.
type Action string

// The actions.
const (
	ActionCreated   Action = "created"   // there was none
	ActionUpdated   Action = "updated"   // larder's earlier text was replaced
	ActionReplaced  Action = "replaced"  // somebody else's file was kept as Change.Backup
	ActionUnchanged Action = "unchanged" // it was as wanted
	ActionLeft      Action = "left"      // it could not be changed without losing something; the error says why
	ActionRemoved   Action = "removed"   // larder's file was taken away
	ActionRestored  Action = "restored"  // the file that was there before larder's is back
)

// Change is what Apply or Undo did to one file.
type Change struct {
	// Host is the registry host, or DefaultHost.
	Host string `json:"host"`
	// Path is the hosts.toml.
	Path string `json:"path"`
	// Action is what was done to it.
	Action Action `json:"action"`
	// Backup is the path of the kept file that larder did not write, if Action is ActionReplaced.
	Backup string `json:"backup,omitempty"`
}

// Apply writes the hosts.toml files for o and returns what it did to each, up to the error if there is one. Doing it
// again changes nothing. A cancelled ctx stops it between two files.
//
// The error wraps errdefs.ErrInvalidArgument for wrong options, errdefs.ErrPermissionDenied when larder may not
// write there, errdefs.ErrUnavailable when another run is at work, and errdefs.ErrFailedPrecondition when all was
// done but for the files it names.
func Apply(ctx context.Context, o Options) ([]Change, error) {
	o, err := o.applyDefaultsAndValidate()
	if err != nil {
		return nil, err
	}
	c, err := openCertsDir(o.CertsDir, true)
	if err != nil {
		return nil, err
	}
	defer c.close()
	targets, err := c.targets(o)
	if err != nil {
		return nil, err
	}
	return each(ctx, targets, func(t target) (*Change, error) { return c.apply(t, o) })
}

// each runs do over targets. A refusal is remembered and the next target is tried; any other error ends it.
func each(ctx context.Context, targets []target, do func(target) (*Change, error)) ([]Change, error) {
	var changes []Change
	var refused []error
	for _, t := range targets {
		if err := ctx.Err(); err != nil {
			return changes, errors.Join(append(refused, err)...)
		}
		ch, err := do(t)
		if ch != nil {
			changes = append(changes, *ch)
		}
		if err != nil {
			refused = append(refused, err)
		}
		if err != nil && !errdefs.IsFailedPrecondition(err) {
			break
		}
	}
	return changes, errors.Join(refused...)
}

func (c *certsDir) apply(t target, o Options) (*Change, error) {
	ch := &Change{Host: t.host, Path: c.hostsFile(t.dir), Action: ActionLeft}
	e, err := c.look(t.dir)
	if err != nil {
		return ch, err
	}
	f := c.plan(t, e, o)
	if err := refusal(f, o.Force); err != nil {
		return ch, err
	}
	if f.State == StateSame {
		ch.Action = ActionUnchanged
		return ch, nil
	}
	if !e.folder {
		if err := c.makeFolder(t.dir, f.Content); err != nil {
			return ch, err
		}
		ch.Action = ActionCreated
		return ch, nil
	}
	// A kept file that is the present one is what a crash between link and rename leaves.
	keep := f.State == StateForeign && e.backup == nil
	if err := c.replaceFile(t.dir, f.Content, keep); err != nil {
		return ch, err
	}
	switch f.State {
	case StateNew:
		ch.Action = ActionCreated
	case StateForeign:
		ch.Action, ch.Backup = ActionReplaced, filepath.Join(filepath.Dir(ch.Path), backupName)
	default:
		ch.Action = ActionUpdated
	}
	return ch, nil
}
