package disks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Injection is a tracer that has system calls of a process fail.
type Injection struct {
	t    testing.TB
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

// Inject has system calls of a running process fail, or kill it, until Stop.
// what are strace's terms, such as "fsync:error=EIO". Its `when=` counts each
// thread for itself, and a Go program moves among threads.
func Inject(t testing.TB, pid int, what ...string) *Injection {
	t.Helper()
	in := &Injection{t: t, log: filepath.Join(t.TempDir(), "strace"), done: make(chan struct{})}
	args := []string{"-f", "-o", in.log, "-p", fmt.Sprint(pid)}
	for _, w := range what {
		args = append(args, "-e", "inject="+w)
	}
	in.cmd = exec.Command("strace", append(args, "-e", "trace="+calls(what))...) //nolint:noctx // Stop ends it
	in.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stderr, err := in.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := in.cmd.Start(); errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("%v: `make deps` installs it", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Stop)
	attached := make(chan string, 1)
	go func() {
		defer close(in.done)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if text := lines.Text(); strings.Contains(text, "attached") || strings.Contains(text, "attach:") {
				select {
				case attached <- text:
				default:
				}
			}
		}
		_ = in.cmd.Wait()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	select {
	case text := <-attached:
		if strings.Contains(text, "attach:") {
			t.Fatalf("strace: %s", text)
		}
	case <-in.done:
		t.Fatalf("strace %s: ended at once", strings.Join(args, " "))
	case <-ctx.Done():
		t.Fatal("strace: did not attach")
	}
	return in
}

// calls are the names of the system calls in strace's terms.
func calls(what []string) string {
	var names []string
	for _, w := range what {
		name, _, _ := strings.Cut(w, ":")
		names = append(names, name)
	}
	return strings.Join(names, ",")
}

// Stop lets the process go on without faults. It may be called twice.
func (in *Injection) Stop() {
	in.t.Helper()
	select {
	case <-in.done: // the process ended, and the tracer with it
		return
	default:
	}
	_ = in.cmd.Process.Signal(syscall.SIGTERM) // it detaches
	select {
	case <-in.done:
	case <-time.After(20 * time.Second):
		_ = in.cmd.Process.Kill()
		<-in.done
		in.t.Errorf("strace did not let go within 20 s")
	}
}

// Hits is how many calls failed so far.
func (in *Injection) Hits() int {
	in.t.Helper()
	text, err := os.ReadFile(in.log)
	if err != nil {
		in.t.Fatal(err)
	}
	return strings.Count(string(text), "(INJECTED)")
}

// Wait returns when the traced process has ended, or ctx has.
func (in *Injection) Wait(ctx context.Context) error {
	select {
	case <-in.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the traced process: %w", context.Cause(ctx))
	}
}
