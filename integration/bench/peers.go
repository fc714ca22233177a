package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// peers are programs of Debian that larder is measured beside. They are unpacked from
// their packages and not installed: that needs no root, starts no service, and leaves
// the machine as it is.
type peers struct {
	dir string
	// missing says why a program is not there.
	missing map[string]string
}

// debian are the programs by the package that has them, and where it has them.
func debian() map[string]string {
	return map[string]string{"nginx": "usr/sbin/nginx", "docker-registry": "usr/bin/docker-registry"}
}

// fetchPeers brings those that are not in dir yet.
func fetchPeers(ctx context.Context, dir string) (*peers, error) {
	p := &peers{dir: dir, missing: map[string]string{}}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	for name := range debian() {
		if _, err := os.Stat(p.path(name)); errors.Is(err, fs.ErrNotExist) {
			if err := p.fetch(ctx, name); err != nil {
				p.missing[name] = err.Error()
			}
		}
		if p.missing[name] == "" {
			p.missing[name] = lacks(ctx, p.path(name))
		}
	}
	return p, ctx.Err()
}

func (p *peers) path(name string) string { return filepath.Join(p.dir, name, debian()[name]) }

// fetch downloads a package and unpacks it. The lists of packages may be old, or not
// there; only root may renew them.
func (p *peers) fetch(ctx context.Context, name string) error {
	into := filepath.Join(p.dir, name)
	tmp, err := os.MkdirTemp(p.dir, "deb-")
	if err != nil {
		return fmt.Errorf("package %s: %w", name, err)
	}
	defer os.RemoveAll(tmp)
	err = command(ctx, tmp, "apt-get", "download", "-q", name)
	if err != nil && os.Getuid() == 0 {
		if err = command(ctx, tmp, "apt-get", "update", "-q"); err == nil {
			err = command(ctx, tmp, "apt-get", "download", "-q", name)
		}
	}
	if err != nil {
		return fmt.Errorf("package %s: %w", name, err)
	}
	packages, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("package %s: %d files downloaded: %w", name, len(packages), err)
	}
	return command(ctx, tmp, "dpkg-deb", "-x", packages[0], into)
}

// lacks says which libraries a program does not find.
func lacks(ctx context.Context, program string) string {
	out, err := exec.CommandContext(ctx, "ldd", program).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("ldd %s: %v", program, err)
	}
	var missing []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "not found") {
			missing = append(missing, strings.Fields(line)[0])
		}
	}
	if len(missing) > 0 {
		return "libraries are missing: " + strings.Join(missing, ", ")
	}
	return ""
}

// command runs a program whose output is of interest only if it fails.
func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		said := strings.TrimSpace(string(out))
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, said[max(0, len(said)-300):])
	}
	return nil
}

// commandOutput is what a program prints.
func commandOutput(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}
