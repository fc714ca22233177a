package parts

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Containerd is a containerd with the CRI plugin, private in all its paths.
type Containerd struct {
	bin     Bin
	dir     string
	release string
	proc    *Process
}

// StartContainerd runs a containerd under dir, which must be short enough for a
// unix socket path. It needs root.
func StartContainerd(ctx context.Context, bin Bin, dir string, opts ContainerdOptions) (*Containerd, error) {
	c := &Containerd{bin: bin, dir: filepath.Join(dir, "containerd"), release: opts.Release}
	if err := os.MkdirAll(c.path("tmp"), 0o700); err != nil {
		return nil, fmt.Errorf("containerd: %w", err)
	}
	config := c.Config()
	if err := os.WriteFile(config, []byte(c.configText(opts)), 0o600); err != nil {
		return nil, fmt.Errorf("containerd config: %w", err)
	}
	var err error
	program := c.program("containerd")
	if opts.Builtin {
		program = c.bin.Path("containerd-larder")
	}
	if c.proc, err = Start(program, append([]string{bin.searchPath(opts.Release)}, opts.Env...), "--config", config); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if _, err := c.proc.WaitLine(ctx, "containerd successfully booted"); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Containerd) path(name string) string { return filepath.Join(c.dir, name) }

// program is the path of a program that comes with each release of containerd.
func (c *Containerd) program(name string) string {
	if c.release != "" {
		name += "-" + c.release
	}
	return c.bin.Path(name)
}

// Config is the path of containerd's config file.
func (c *Containerd) Config() string { return c.path("config.toml") }

// Address is the path of containerd's gRPC socket, CRI included.
func (c *Containerd) Address() string { return c.path("c.sock") }

// PID is containerd's process id.
func (c *Containerd) PID() int { return c.proc.PID() }

// Log is containerd's log so far.
func (c *Containerd) Log() string { return c.proc.Output() }

// Ctr runs ctr against this containerd and returns its standard output. The
// error holds the end of standard error.
func (c *Containerd) Ctr(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.program("ctr"), append([]string{"--address", c.Address()}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, tail(withoutWarnings(stderr.String()), 4))
	}
	return stdout.String(), nil
}

// withoutWarnings drops log lines, such as ctr's on every call with cgroup v1.
func withoutWarnings(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "level=warning") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// Forget removes all images from a containerd namespace and collects garbage.
// It is an error when content stays behind, because a later pull would then
// prove nothing.
func (c *Containerd) Forget(ctx context.Context, namespace string) error {
	images, err := c.Ctr(ctx, "-n", namespace, "images", "ls", "-q")
	if err != nil {
		return err
	}
	if names := strings.Fields(images); len(names) > 0 {
		args := append([]string{"-n", namespace, "images", "rm", "--sync"}, names...)
		if _, err := c.Ctr(ctx, args...); err != nil {
			return err
		}
	}
	content, err := c.Ctr(ctx, "-n", namespace, "content", "ls", "-q")
	if err != nil {
		return err
	}
	if left := strings.Fields(content); len(left) > 0 {
		return fmt.Errorf("containerd still has %d blobs in namespace %s: %s", len(left), namespace, left)
	}
	return nil
}

// RunContainer runs the command of the pulled image ref in a new container and
// returns what it printed. The container has no cgroup, so that it starts inside
// other containers too. Its shim writes what it prints to a file: ctr itself stops
// reading when the container has ended, and on a busy machine has read nothing yet.
func (c *Containerd) RunContainer(ctx context.Context, ref string) (string, error) {
	defer TidyShims()()
	const id = "demo"
	printed := c.path("printed")
	defer os.Remove(printed)
	out, err := c.Ctr(ctx, "run", "--rm", "--cgroup", "", "--runc-root", c.path("runc"), "--log-uri", "file://"+printed, ref, id)
	if err == nil {
		text, err := os.ReadFile(printed)
		return string(text), err
	}
	// A ctr that was interrupted leaves the container, whose shim would outlive
	// containerd. Its own error comes first: there may be nothing to remove.
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	_, _ = c.Ctr(undo, "tasks", "rm", "--force", id)
	return out, err
}

// TidyShims returns what takes away the folders that shims and pods leave
// outside a containerd's own, and that were not there at the call. They cannot be
// moved. Remove leaves a folder alone that others use.
func TidyShims() func() {
	var made []string
	for _, dir := range []string{"/run/containerd", "/run/containerd/s", "/run/containerd/runc", "/run/containerd/runc/k8s.io"} {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			made = append(made, dir)
		}
	}
	return func() {
		for _, dir := range slices.Backward(made) {
			_ = os.Remove(dir)
		}
	}
}

// Close ends containerd and takes away the mounts that it may have left.
func (c *Containerd) Close() error {
	return errors.Join(c.proc.Stop(stopTimeout), unmountBelow(c.dir))
}

// unmountBelow detaches every mount at or under dir, the innermost first.
func unmountBelow(dir string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	var points []string
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		fields := strings.Fields(scan.Text())
		if len(fields) > 4 && (fields[4] == dir || strings.HasPrefix(fields[4], dir+"/")) {
			points = append(points, fields[4])
		}
	}
	errs := []error{scan.Err()}
	for _, point := range slices.Backward(points) {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	return errors.Join(errs...)
}
