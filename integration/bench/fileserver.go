package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/larder-project/larder/integration/internal/parts"
)

// filesEnv has this program be a file server for a folder, and listening is what it
// says before its address.
const (
	filesEnv  = "LARDER_BENCH_FILES"
	listening = "listening on "
)

// startFileServer starts Go's own file server for the files below root, in a process of
// its own: what is possible without leaving the standard library.
func startFileServer(ctx context.Context, root string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("own program: %w", err)
	}
	proc, err := parts.Start(self, []string{filesEnv + "=" + root})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	line, err := proc.WaitLine(ctx, listening)
	if err != nil {
		return nil, errors.Join(err, proc.Kill())
	}
	_, addr, _ := strings.Cut(line, listening)
	return &server{who: goFiles, addr: addr, files: true, proc: proc, close: func() error { return proc.Stop(stopLimit) }}, nil
}

// beFileServer serves until it is told to stop. ok is false in a process that was
// started for something else.
func beFileServer() (code int, ok bool) {
	root := os.Getenv(filesEnv)
	if root == "" {
		return 0, false
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	fmt.Fprintln(os.Stderr, listening+ln.Addr().String())
	files := http.FileServer(http.Dir(root))
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream") // it would look into the file for it
		files.ServeHTTP(w, r)
	})}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}
