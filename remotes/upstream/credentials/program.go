package credentials

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// programLimit is how long a program may take, below the 30 s after which
	// containerd leaves a mirror. The kubelet allows its plugins a minute; one
	// that needs it is asked again for the next pull.
	programLimit = 10 * time.Second
	// programDelay is how long its output is waited for when it is gone: a
	// program that it started may hold the pipe.
	programDelay = time.Second
	// maxOutput bounds in bytes what it may write.
	maxOutput = 256 << 10
)

// program is somebody's executable that tells credentials.
type program struct {
	path string
	args []string
	env  []string // added to larder's own
}

// run gives the program its input and returns what it wrote, also if it
// failed. What it writes to standard error is thrown away: it may hold
// secrets. The errors say nothing of its output.
func (p program) run(ctx context.Context, input []byte) ([]byte, error) {
	out := &bounded{limit: maxOutput}
	cmd := exec.CommandContext(ctx, p.path, p.args...)
	cmd.Stdin, cmd.Stdout = bytes.NewReader(input), out
	cmd.Env = append(os.Environ(), p.env...)
	cmd.WaitDelay = programDelay
	ownGroup(cmd)
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		_ = cmd.Cancel() // what it started and left behind
	}
	switch {
	case err == nil:
		return out.kept.Bytes(), nil
	case out.over:
		return nil, fmt.Errorf("%s wrote more than %d bytes: %w", p.path, out.limit, errdefs.ErrInvalidArgument)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s took too long and was ended: %w: %w", p.path, ctx.Err(), errdefs.ErrUnavailable)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.kept.Bytes(), fmt.Errorf("%s failed (%s), run it by hand to see why: %w", p.path, exit.ProcessState, errdefs.ErrUnavailable)
	}
	return nil, fmt.Errorf("%s: %w", p.path, fileError(err))
}

// bounded keeps what is written to it up to a limit, and fails then. The
// buffer is not embedded: io.Copy would find its ReadFrom, which has no limit.
type bounded struct {
	kept  bytes.Buffer
	limit int
	over  bool
}

// Write implements io.Writer.
func (b *bounded) Write(data []byte) (int, error) {
	if b.over = b.over || b.kept.Len()+len(data) > b.limit; b.over {
		return 0, errors.New("too much output")
	}
	return b.kept.Write(data)
}
