package parts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
)

// output is what a program has written to a pipe, with waiting readers. Whoever asks
// for it reads the pipe first: the goroutine that follows it may be late on a busy
// machine, and a test that counts lines would then miss the last.
type output struct {
	pipe *os.File
	raw  syscall.RawConn

	mu    sync.Mutex // guards what follows, and the order of reads
	cond  *sync.Cond
	buf   bytes.Buffer
	ended bool
}

// newOutput takes over the pipe's reading end, which must not block.
func newOutput(pipe *os.File) (*output, error) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read output: %w", err), pipe.Close())
	}
	o := &output{pipe: pipe, raw: raw}
	o.cond = sync.NewCond(&o.mu)
	return o, nil
}

// follow reads until every writer has closed the pipe, and closes it.
func (o *output) follow() {
	_ = o.raw.Read(func(fd uintptr) bool { return o.take(int(fd)) })
	_ = o.pipe.Close()
}

// take reads what is in the pipe. It reports whether nothing more will come.
func (o *output) take(fd int) (end bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b [32 << 10]byte
	for {
		n, err := syscall.Read(fd, b[:])
		switch {
		case n > 0:
			o.buf.Write(b[:n])
			o.cond.Broadcast()
		case err == nil:
			return true
		case !errors.Is(err, syscall.EINTR):
			return !errors.Is(err, syscall.EAGAIN)
		}
	}
}

func (o *output) String() string {
	_ = o.raw.Control(func(fd uintptr) { o.take(int(fd)) }) // fails when it is closed: then all is here
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.cond.Broadcast()
}

func (o *output) wake() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cond.Broadcast()
}

var errEnded = errors.New("the program ended")

func (o *output) find(ctx context.Context, sub string) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		text := o.buf.String()
		text = text[:strings.LastIndexByte(text, '\n')+1] // whole lines only
		for line := range strings.Lines(text) {
			if strings.Contains(line, sub) {
				return strings.TrimSpace(line), nil
			}
		}
		if o.ended {
			return "", errEnded
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		o.cond.Wait()
	}
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
