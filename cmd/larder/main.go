// Command larder is the node-local image cache: the daemon and its verbs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cmd/larder/config"
)

// version is set by the linker.
var version = "dev"

func main() {
	// The first signal asks for an orderly end; a second one ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2 // wrong flags or a wrong configuration
)

// run is main without the process: it executes one verb and returns its exit
// code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return execute(ctx, newRootCommand(&options{stdout: stdout, stderr: stderr}), args, stderr)
}

// execute runs a root command, and tells on stderr how it failed.
func execute(ctx context.Context, root *cobra.Command, args []string, stderr io.Writer) int {
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		fmt.Fprintln(stderr, "larder: interrupted")
		return exitFailure
	}
	fmt.Fprintf(stderr, "larder: %s\n", withoutKind(err.Error()))
	if errors.As(err, new(*config.Error)) || errors.As(err, new(*usageError)) {
		return exitUsage
	}
	return exitFailure
}

// withoutKind takes the error's kind from the end of each line: it is for
// programs, and the text before it says as much.
func withoutKind(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		for _, kind := range []error{
			errdefs.ErrNotFound, errdefs.ErrUnavailable, errdefs.ErrInvalidArgument, errdefs.ErrFailedPrecondition,
			errdefs.ErrPermissionDenied, errdefs.ErrAlreadyExists, errdefs.ErrDataLoss, errdefs.ErrResourceExhausted,
		} {
			line = strings.TrimSuffix(line, ": "+kind.Error())
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n")
}

// usageError is a mistake in flags or arguments.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() + "\nRun with --help for the usage." }
func (e *usageError) Unwrap() error { return e.err }
