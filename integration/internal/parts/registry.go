package parts

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// Registry is a distribution v3 registry with its storage on disk and deletion
// enabled.
type Registry struct {
	proc *Process
	// URL is the registry's base, as in http://127.0.0.1:43210.
	URL string
}

const registryConfig = `version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
`

// plainHTTP is the http section of a registry without TLS.
const plainHTTP = `http: {addr: "127.0.0.1:0"}
`

// StartRegistry runs a registry whose files live under dir.
func StartRegistry(ctx context.Context, bin Bin, dir string) (*Registry, error) {
	return startRegistry(ctx, bin, dir, "")
}

// StartRegistryMirror runs a registry that pulls through from another at base, and
// stores what it has pulled under dir.
func StartRegistryMirror(ctx context.Context, bin Bin, dir, base string) (*Registry, error) {
	return startRegistry(ctx, bin, dir, fmt.Sprintf("proxy: {remoteurl: %q}\n", base))
}

// startRegistry adds more to the registry's configuration.
func startRegistry(ctx context.Context, bin Bin, dir, more string) (*Registry, error) {
	return runRegistry(ctx, bin, dir, "http", plainHTTP+more)
}

// SeedRegistry puts images into the files of a registry that is not up yet, and
// that may ask for more than who pushes has: push gets the base of one that asks
// for nothing and ends with it.
func SeedRegistry(ctx context.Context, bin Bin, dir string, push func(base string) error) error {
	r, err := StartRegistry(ctx, bin, dir)
	if err != nil {
		return err
	}
	if err := push(r.URL); err != nil {
		_ = r.Close()
		return fmt.Errorf("seed registry: %w", err)
	}
	return r.Close()
}

// runRegistry runs a registry with the sections in more, and with its files
// under dir.
func runRegistry(ctx context.Context, bin Bin, dir, scheme, more string) (*Registry, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	config := filepath.Join(dir, "registry.yml")
	text := fmt.Sprintf(registryConfig, filepath.Join(dir, "registry")) + more
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("registry config: %w", err)
	}
	proc, err := Start(bin.Path("registry"), []string{"OTEL_TRACES_EXPORTER=none"}, "serve", config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	line, err := proc.WaitLine(ctx, "listening on")
	if err != nil {
		_ = proc.Kill()
		return nil, err
	}
	addr := regexp.MustCompile(`(127\.0\.0\.1|\[::1\]):\d+`).FindString(line)
	if addr == "" {
		_ = proc.Kill()
		return nil, fmt.Errorf("registry: no address in %q", line)
	}
	return &Registry{proc: proc, URL: scheme + "://" + addr}, nil
}

// Log is the registry's log so far.
func (r *Registry) Log() string { return r.proc.Output() }

// Signal sends a signal to the registry: SIGSTOP has it hang.
func (r *Registry) Signal(sig syscall.Signal) error { return r.proc.Signal(sig) }

// Close ends the registry; its files stay with their folder.
func (r *Registry) Close() error { return r.proc.Stop(stopTimeout) }

// Generous, because a loaded two-core machine starts programs slowly; nothing
// waits this long when all is well.
const (
	startTimeout = 30 * time.Second
	stopTimeout  = 15 * time.Second
)
