package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// planEnv has a program that calls [Child] be the load.
const planEnv = "LARDER_BENCH_LOAD"

// Start makes the load in a process of its own: this program once more, which has to
// begin with [Child].
func Start(ctx context.Context, p Plan) (Result, error) {
	plan, err := json.Marshal(p)
	if err != nil {
		return Result{}, fmt.Errorf("load: plan: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return Result{}, fmt.Errorf("load: own program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), planEnv+"="+string(plan))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return Result{}, fmt.Errorf("load of %s: %w", p.Path, errors.Join(context.Cause(ctx), err, errors.New(strings.TrimSpace(stderr.String()))))
	}
	var r Result
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		return Result{}, fmt.Errorf("load of %s: result: %w", p.Path, err)
	}
	return r, nil
}

// Child makes the load that this process was started for, and says with which code it
// has to end. ok is false in a process that was started for something else.
func Child() (code int, ok bool) {
	text := os.Getenv(planEnv)
	if text == "" {
		return 0, false
	}
	var p Plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	r, err := Do(p)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}
