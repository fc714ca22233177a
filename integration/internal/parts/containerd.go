package parts

import (
	"bufio"
	"bytes"
	"cmp"
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
	bin  Bin
	dir  string
	proc *Process
}

// ContainerdOptions vary the configuration.
type ContainerdOptions struct {
	// CertsDir is the registry config_path of the CRI plugin: one root.
	CertsDir string
	// LocalPull sets use_local_image_pull: the CRI plugin then pulls by itself
	// and not through the transfer service.
	LocalPull bool
	// ChunkSize in bytes lets the CRI plugin's own pull fetch one layer in
	// chunks, over as many connections as Downloads; 0 is containerd's default.
	ChunkSize, Downloads int
}

// Plugins that reach outside the private folder (nri, opt) or only cost time
// and log lines are off.
const containerdConfig = `version = 3
root = %[1]q
state = %[2]q
temp = %[3]q
imports = []
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = %[4]q
[ttrpc]
  address = %[5]q
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  use_local_image_pull = %[6]t
  concurrent_layer_fetch_buffer = %[9]d
  max_concurrent_downloads = %[10]d
[plugins."io.containerd.cri.v1.images".registry]
  config_path = %[7]q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [%[8]q]
  conf_dir = %[8]q
`

// StartContainerd runs a containerd under dir, which must be short enough for a
// unix socket path. It needs root.
func StartContainerd(ctx context.Context, bin Bin, dir string, opts ContainerdOptions) (*Containerd, error) {
	c := &Containerd{bin: bin, dir: filepath.Join(dir, "containerd")}
	if err := os.MkdirAll(c.path("tmp"), 0o700); err != nil {
		return nil, fmt.Errorf("containerd: %w", err)
	}
	text := fmt.Sprintf(containerdConfig, c.path("root"), c.path("state"), c.path("tmp"),
		c.Address(), c.Address()+".ttrpc", opts.LocalPull, opts.CertsDir, c.path("cni"),
		opts.ChunkSize, cmp.Or(opts.Downloads, 3))
	config := c.path("config.toml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("containerd config: %w", err)
	}
	var err error
	if c.proc, err = Start(bin.Path("containerd"), []string{bin.searchPath()}, "--config", config); err != nil {
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

// Address is the path of containerd's gRPC socket, CRI included.
func (c *Containerd) Address() string { return c.path("c.sock") }

// Log is containerd's log so far.
func (c *Containerd) Log() string { return c.proc.Output() }

// Ctr runs ctr against this containerd and returns its standard output. The
// error holds the end of standard error.
func (c *Containerd) Ctr(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.bin.Path("ctr"), append([]string{"--address", c.Address()}, args...)...)
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
// other containers too.
func (c *Containerd) RunContainer(ctx context.Context, ref string) (string, error) {
	// The shim's socket folder cannot be moved. It is taken away again when it
	// was not there before; Remove leaves a folder alone that others use.
	for _, dir := range []string{"/run/containerd", "/run/containerd/s"} {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			defer os.Remove(dir)
		}
	}
	const id = "demo"
	out, err := c.Ctr(ctx, "run", "--rm", "--cgroup", "", "--runc-root", c.path("runc"), "--fifo-dir", c.path("fifo"), ref, id)
	if err != nil {
		// A ctr that was interrupted leaves the container, whose shim would outlive
		// containerd. Its own error comes first: there may be nothing to remove.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		_, _ = c.Ctr(undo, "tasks", "rm", "--force", id)
	}
	return out, err
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
