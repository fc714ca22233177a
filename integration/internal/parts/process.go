package parts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Process is a started program whose output is kept in memory.
type Process struct {
	name string
	cmd  *exec.Cmd
	out  *output
	done chan struct{} // closed when the program has ended and was reaped
	err  error         // of Wait; read only after done
}

// Start runs path with args and extra environment entries ("K=V"). The child
// gets its own process group, so that a terminal's Ctrl-C reaches only the
// parent, which then ends its parts in order.
func Start(path string, env []string, args ...string) (*Process, error) {
	return StartWith(StartOptions{}, path, env, args...)
}

// StartOptions are what few programs need. The zero value is what the others have.
type StartOptions struct {
	// Stdin of the program. Nil: empty.
	Stdin io.Reader
	// Namespaces of its own, as in clone(2).
	Cloneflags uintptr
}

// StartWith is Start with options.
func StartWith(o StartOptions, path string, env []string, args ...string) (*Process, error) {
	p := &Process{name: filepath.Base(path), done: make(chan struct{})}
	p.cmd = exec.Command(path, args...) //nolint:noctx // a part outlives the context of its start; Stop ends it
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdin = o.Stdin
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: o.Cloneflags}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("%s: pipe for output: %w", p.name, err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: start: %w", p.name, err), r.Close(), w.Close())
	}
	_ = w.Close() // the child holds its own copy; end of file then means that the child is gone
	if p.out, err = newOutput(r); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", p.name, err), p.cmd.Process.Kill(), p.cmd.Wait())
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.out.follow()
	}()
	go func() {
		p.err = p.cmd.Wait()
		select {
		case <-read: // its last words are in
		case <-time.After(lastWords): // a child of its own has the pipe, and lives on
		}
		p.out.end()
		close(p.done)
	}()
	return p, nil
}

// lastWords bounds the wait for the output of a program that has ended.
const lastWords = time.Second

// PID is the process id of the program.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output is all that the program has written so far, stdout and stderr mixed: what
// it wrote before the call is in it.
func (p *Process) Output() string { return p.out.String() }

// Signal sends sig to the program alone, not to its children.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("%s: signal %v: %w", p.name, sig, err)
	}
	return nil
}

// Wait blocks until the program ends and returns its exit error, or until ctx
// is done.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("%s: wait for the end: %w", p.name, context.Cause(ctx))
	}
}

// Kill ends the program at once, as a crash would, and reaps it.
func (p *Process) Kill() error {
	err := p.cmd.Process.Kill()
	<-p.done
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: kill: %w", p.name, err)
	}
	return nil
}

// Stop asks the program to end by SIGTERM and kills it when it has not after
// grace. Being killed is an error: a part that does not stop hides a bug.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
	}
	_ = p.Kill()
	return fmt.Errorf("%s: still running %v after SIGTERM, killed; its last words:\n%s", p.name, grace, tail(p.Output(), 20))
}

// WaitLine returns the first line of output, past or future, that contains sub.
// It fails when the program ends before, or when ctx is done.
func (p *Process) WaitLine(ctx context.Context, sub string) (string, error) {
	stop := context.AfterFunc(ctx, p.out.wake)
	defer stop()
	line, err := p.out.find(ctx, sub)
	if err != nil {
		return "", fmt.Errorf("%s: wait for %q: %w; output:\n%s", p.name, sub, err, tail(p.Output(), 20))
	}
	return line, nil
}
