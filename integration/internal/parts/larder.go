package parts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Larder is a larder with a private store, config and admin socket.
type Larder struct {
	bin   Bin
	dir   string
	root  string
	extra string
	env   []string
	proc  *Process
	// URL is the mirror's base. It stays the same over restarts.
	URL string
}

// NewLarder prepares a larder under dir without starting it. extra is TOML that
// is added to the config: tables as they are, and top-level keys before them.
// env are environment entries for the daemon and for verbs.
func NewLarder(bin Bin, dir, extra string, env ...string) (*Larder, error) {
	l := &Larder{bin: bin, dir: filepath.Join(dir, "larder"), extra: extra, env: env, URL: "http://127.0.0.1:0"}
	l.root = filepath.Join(l.dir, "store")
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, fmt.Errorf("larder: %w", err)
	}
	return l, l.writeConfig()
}

// StartLarder prepares a larder and starts it.
func StartLarder(ctx context.Context, bin Bin, dir, extra string, env ...string) (*Larder, error) {
	l, err := NewLarder(bin, dir, extra, env...)
	if err != nil {
		return nil, err
	}
	return l, l.Start(ctx)
}

// Config is the path of larder's config file.
func (l *Larder) Config() string { return filepath.Join(l.dir, "config.toml") }

// Root is the folder of larder's store.
func (l *Larder) Root() string { return l.root }

// SetRoot moves the store elsewhere, such as to a disk of its own, from the next
// start on.
func (l *Larder) SetRoot(root string) error {
	l.root = root
	return l.writeConfig()
}

// PID is the daemon's process id.
func (l *Larder) PID() int { return l.proc.PID() }

// Log is what the running, or last, daemon has written.
func (l *Larder) Log() string { return l.proc.Output() }

// Process is the running, or last, daemon.
func (l *Larder) Process() *Process { return l.proc }

// config puts the keys that the harness needs around extra. Those of the tables
// mirror and admin are written dotted, before any table.
func (l *Larder) config(url string) string {
	head, tables := l.extra, ""
	if i := strings.Index("\n"+l.extra, "\n["); i >= 0 {
		head, tables = l.extra[:i], l.extra[i:]
	}
	if !strings.Contains(l.extra, "\n[space]") && !strings.HasPrefix(l.extra, "[space]") && !strings.Contains(l.extra, "space.") {
		head += "\nspace = {max_size = \"off\", min_free = \"off\"}\n" // however full the disk of the test is
	}
	return fmt.Sprintf("root = %q\nmirror.address = %q\nadmin.address = %q\n%s\n%s", l.Root(),
		strings.TrimPrefix(url, "http://"), filepath.Join(l.dir, "admin.sock"), head, tables)
}

func (l *Larder) writeConfig() error {
	if err := os.WriteFile(l.Config(), []byte(l.config(l.URL)), 0o600); err != nil {
		return fmt.Errorf("larder config: %w", err)
	}
	return nil
}

// Start runs the daemon and returns once it listens. The first start chooses
// the port; the config then names it, so that `larder setup` and later starts
// use the same.
func (l *Larder) Start(ctx context.Context) error {
	proc, err := Start(l.bin.Path("larder"), l.env, "serve", "--config", l.Config())
	if err != nil {
		return err
	}
	l.proc = proc
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	const mark = "mirror listening on "
	line, err := proc.WaitLine(ctx, mark)
	if err != nil {
		return errors.Join(err, proc.Kill())
	}
	_, url, _ := strings.Cut(line, mark)
	l.URL = strings.TrimSpace(url)
	return l.writeConfig()
}

// Setup writes the hosts.toml files into certs as `larder setup containerd` does
// for a mirror at url: larder's own, or that of a Meter in front of it.
func (l *Larder) Setup(ctx context.Context, certs, url string) error {
	config := filepath.Join(l.dir, "setup.toml")
	if err := os.WriteFile(config, []byte(l.config(url)), 0o600); err != nil {
		return fmt.Errorf("larder config: %w", err)
	}
	_, err := l.run(ctx, "setup", "containerd", "--certs-d", certs, "--config", config)
	return err
}

// Run runs a verb of larder's command line with this daemon's config and
// returns its standard output. The error holds standard error.
func (l *Larder) Run(ctx context.Context, args ...string) (string, error) {
	return l.run(ctx, append(args, "--config", l.Config())...)
}

func (l *Larder) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, l.bin.Path("larder"), args...)
	cmd.Env = append(os.Environ(), l.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("larder %s: %w: %s", strings.Join(args, " "), err, tail(stderr.String(), 8))
	}
	return stdout.String(), nil
}

// Kill ends the daemon as a crash would.
func (l *Larder) Kill() error { return l.proc.Kill() }

// Signal sends sig to the daemon.
func (l *Larder) Signal(sig syscall.Signal) error { return l.proc.Signal(sig) }

// Close ends the daemon in an orderly way. A prepared larder that was never
// started has nothing to end.
func (l *Larder) Close() error {
	if l.proc == nil {
		return nil
	}
	return l.proc.Stop(stopTimeout)
}
