package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// top is how many functions of a profile are printed.
const top = "25"

// profile puts load on larder, row by row, and takes profiles of the time and the
// memory that this costs it.
func profile(ctx context.Context, s *stage, rows []row, t task) error {
	if err := os.MkdirAll(t.out, 0o755); err != nil { //nolint:gosec // for whoever looks at profiles
		return err
	}
	for _, r := range rows {
		for _, n := range t.clients {
			name := filepath.Join(t.out, fmt.Sprintf("%s-%d", r.name, n))
			f, err := s.profileRow(ctx, r, n, t.length, name)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			fmt.Fprintf(t.report, "== %s, %d clients: %s\n", r.name, n, f)
			for kind, options := range map[string][]string{"cpu": nil, "heap": {"-sample_index=alloc_space"}} {
				if err := printTop(ctx, t.report, name+"."+kind+".pprof", options); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// profileRow measures a row while the daemon profiles itself.
func (s *stage) profileRow(ctx context.Context, r row, clients int, length time.Duration, name string) (f figures, err error) {
	if _, err := r.measure(ctx, s, clients, length/5); err != nil { // it warms up
		return f, err
	}
	took := make(chan error, 1)
	go func() {
		took <- s.fetch(ctx, fmt.Sprintf("profile?seconds=%d", max(1, int(length.Seconds()))), name+".cpu.pprof")
	}()
	f, err = r.measure(ctx, s, clients, length+time.Second)
	return f, errors.Join(err, <-took, s.fetch(ctx, "allocs", name+".heap.pprof"))
}

// fetch takes a profile from the admin socket.
func (s *stage) fetch(ctx context.Context, what, to string) error {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.socket())
		},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://larder/debug/pprof/"+what, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile %s: %s", what, resp.Status)
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}

// printTop has Go's own tool say where the time, or the memory, went.
func printTop(ctx context.Context, to io.Writer, path string, options []string) error {
	args := append([]string{"tool", "pprof", "-top", "-nodecount=" + top}, options...)
	cmd := exec.CommandContext(ctx, "go", append(args, path)...)
	cmd.Stdout, cmd.Stderr = to, to
	fmt.Fprintf(to, "\n-- %s\n", path)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go tool pprof %s: %w", path, err)
	}
	return nil
}
