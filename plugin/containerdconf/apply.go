package containerdconf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/plugin/internal/ownfile"
)

// plan is what Apply has to do.
type plan struct {
	o       Options
	program program
	version Version
	before  effective // without what larder may change
	main    mainFile
	old     string // the drop-in as it is, "" if there is none
	wanted  string
}

// Plan says what Apply would write, or why it would refuse. It changes nothing.
func Plan(ctx context.Context, o Options) ([]File, error) {
	p, err := newPlan(ctx, o)
	if err != nil {
		return nil, err
	}
	files := []File{{Path: p.main.dropIn, Action: action(p.old != "", p.old == p.wanted), Content: p.wanted}}
	if p.main.text != p.main.wanted {
		files = append([]File{{Path: p.main.path, Action: action(p.main.there, false), Content: p.main.added}}, files...)
	}
	return files, nil
}

func action(there, same bool) Action {
	switch {
	case !there:
		return ActionCreated
	case same:
		return ActionUnchanged
	}
	return ActionUpdated
}

// Apply writes larder's drop-in into containerd's configuration, and the line that has containerd read it if there is
// none. Then it asks containerd what the configuration comes to: if anything else would change, or something wanted is
// missing, all is put back. It does not restart containerd. Doing it again changes nothing.
//
// The error wraps errdefs.ErrFailedPrecondition for what would break the node, and says what to do.
func Apply(ctx context.Context, o Options) ([]Change, error) {
	o, err := o.applyDefaultsAndValidate()
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(o.Config)
	if _, err := makeFolder(dir); err != nil {
		return nil, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	p, err := newPlan(ctx, o)
	if err != nil {
		return nil, err
	}
	changes, err := p.write()
	if err == nil {
		err = p.check(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, p.putBack())
	}
	return changes, nil
}

func newPlan(ctx context.Context, o Options) (p plan, err error) {
	if o, err = o.applyDefaultsAndValidate(); err != nil {
		return p, err
	}
	p.o, p.program = o, program{o.Program}
	if p.version, err = p.program.version(ctx); err != nil {
		return p, err
	}
	if err := p.version.check(); err != nil {
		return p, err
	}
	if p.main, err = readMain(o.Config, p.version); err != nil {
		return p, err
	}
	if p.old, _, err = read(p.main.dropIn); err != nil {
		return p, err
	}
	now, err := p.now(ctx)
	if err != nil {
		return p, err
	}
	p.before = now.without(p.version)
	d := parseDropIn(p.old)
	d.mode, d.root = o.Mode, now.text("root")
	d.configPath = d.configPath || p.version.Merges() && now.needsConfigPath()
	if _, err := os.Stat(filepath.Dir(p.main.dropIn)); err != nil {
		d.madeFolder = true
	}
	if err := p.refuse(now, d); err != nil {
		return p, err
	}
	p.wanted, err = d.render(now, p.version, o.Socket, o.CertsDir)
	return p, err
}

// now asks containerd what its configuration comes to. 1.x fails without a file; an empty one is the same.
func (p plan) now(ctx context.Context) (_ effective, err error) {
	if p.main.there {
		return p.program.dump(ctx, p.o.Config)
	}
	f, err := os.CreateTemp("", "larder-*.toml")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = fmt.Fprintf(f, "version = %d\n", p.version.configVersion())
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return p.program.dump(ctx, f.Name())
}

func (p plan) write() ([]Change, error) {
	// First, as alone it does nothing.
	main := Change{Path: p.main.path, Action: action(p.main.there, p.main.text == p.main.wanted)}
	if main.Action == ActionUpdated {
		if err := p.keepMain(); err != nil {
			return nil, err
		}
		main.Backup = p.main.path + backupExt
	}
	if main.Action != ActionUnchanged {
		if err := write(p.main.path, p.main.wanted); err != nil {
			return nil, err
		}
	}
	if _, err := makeFolder(filepath.Dir(p.main.dropIn)); err != nil {
		return nil, err
	}
	drop := Change{Path: p.main.dropIn, Action: action(p.old != "", p.old == p.wanted)}
	if drop.Action != ActionUnchanged {
		if err := write(p.main.dropIn, p.wanted); err != nil {
			return nil, err
		}
	}
	return []Change{main, drop}, nil
}

// keepMain keeps the main file as it is, under a second name.
func (p plan) keepMain() error {
	backup := p.main.path + backupExt
	is, err := os.Stat(p.main.path)
	if err != nil {
		return ownfile.Explain(p.main.path, err)
	}
	kept, err := os.Lstat(backup)
	if err != nil {
		return keep(p.main.path) // which does not overwrite
	}
	if text, _, _ := read(backup); os.SameFile(is, kept) || text == p.main.text {
		return nil // a run that was ended
	}
	return fmt.Errorf("%s is kept already, and %s differs from it; move one of the two away: %w", backup, p.main.path, errdefs.ErrFailedPrecondition)
}

// check asks containerd whether the configuration has become what it was to become, and nothing else.
func (p plan) check(ctx context.Context) error {
	now, err := p.program.dump(ctx, p.o.Config)
	if err != nil {
		return fmt.Errorf("nothing was changed: with larder's file %w", err)
	}
	if lost := differences(map[string]any(p.before), map[string]any(now.without(p.version)), ""); len(lost) > 0 {
		text := strings.Join(lost[:min(len(lost), 5)], "; ")
		if !p.version.Merges() {
			return fmt.Errorf("nothing was changed: containerd %s takes a plugin's table whole from the last file that has one, and would lose what others set (%s); "+
				"write by hand what --print shows, in one table with these settings, or use containerd 2.4 or later: %w", p.version.Text, text, errdefs.ErrFailedPrecondition)
		}
		return fmt.Errorf("nothing was changed: with larder's file other settings would change, too (%s): %w", text, errdefs.ErrFailedPrecondition)
	}
	if missing := p.missing(now); len(missing) > 0 {
		return fmt.Errorf("nothing was changed: containerd would not take %s from %s; a file that is read behind it may say otherwise: %w",
			strings.Join(missing, ", "), p.main.dropIn, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// missing is what a configuration has not of what the mode needs.
func (p plan) missing(now effective) (all []string) {
	if is := slices.Contains(now.disabled(), contentPlugin); is != (p.o.Mode == Proxy) {
		all = append(all, "disabled_plugins")
	}
	proxies := now.proxies()
	if proxies[diffName] != (proxy{"diff", p.o.Socket}) {
		all = append(all, "proxy_plugins."+diffName)
	}
	if p.o.Mode == Proxy && proxies[contentName] != (proxy{"content", p.o.Socket}) {
		all = append(all, "proxy_plugins."+contentName)
	}
	if !slices.Equal(texts(now.table("plugins", diffService)["default"]), now.differs()) {
		all = append(all, diffService)
	}
	for _, u := range tables(now.table("plugins", transferPlugin)[unpackKey]) {
		if u["differ"] == diffName {
			return all
		}
	}
	return append(all, transferPlugin)
}

// putBack undoes write.
func (p plan) putBack() error {
	var errs []error
	if p.old == "" {
		errs = append(errs, remove(p.main.dropIn))
	} else {
		errs = append(errs, write(p.main.dropIn, p.old))
	}
	if parseDropIn(p.wanted).madeFolder && p.old == "" {
		_ = os.Remove(filepath.Dir(p.main.dropIn)) // if it is empty
	}
	switch {
	case p.main.text == p.main.wanted:
	case !p.main.there:
		errs = append(errs, remove(p.main.path))
	default:
		_, err := restoreMain(p.main.path, p.main.text)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
