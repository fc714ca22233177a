package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

const (
	// smallLayer is not worth a copy, in bytes as it is stored.
	smallLayer = 1 << 20
	// relentEvery is how often it is looked whether the disk is too full.
	relentEvery = time.Minute
	// lowest is the niceness of who makes copies: it runs when nobody else wants to.
	lowest = 19
)

// Run makes the copies that are wanted, one after the other, until ctx ends.
func (c *Copies) Run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread is not unlocked: it ends with this goroutine, so that nobody else
		// inherits its niceness.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			c.Run(ctx) // by another thread: this one's niceness is taken for the whole process's
			return
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), lowest); err != nil {
			c.o.Logger.Warn("copies of layers are made at the usual priority", "err", err)
		}
		c.run(ctx)
	}()
	<-done
}

func (c *Copies) run(ctx context.Context) {
	tick := time.NewTicker(relentEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.relent()
		case layer := <-c.wanted:
			c.makeWanted(ctx, layer)
		case <-ctx.Done():
			return
		}
	}
}

// makeWanted makes a copy, and tells why not. That there is no room, or no layer any
// more, is nothing to tell: it would be at each unpacking.
func (c *Copies) makeWanted(ctx context.Context, layer digest.Digest) {
	if c.has(layer) {
		return
	}
	began := time.Now()
	f, err := c.make(ctx, layer)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, errNotWorth), errdefs.IsNotFound(err):
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		c.o.Logger.Debug("there is no room for a copy of a layer", "digest", layer, "err", err)
		c.relent()
	case err != nil:
		c.o.Logger.Warn("no copy of a layer is made", "digest", layer, "err", err)
	default:
		c.o.Logger.Debug("copy of a layer is made", "digest", layer, "bytes", f.bytes, "plain", f.size, "dur", time.Since(began))
	}
}

// errNotWorth says that a copy of a layer would be of little use.
var errNotWorth = errors.New("not worth a copy")

// make reads a layer and publishes a copy.
func (c *Copies) make(ctx context.Context, layer digest.Digest) (f copyFile, err error) {
	ra, err := c.o.Layers.ReaderAt(ctx, ocispec.Descriptor{Digest: layer})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, ra.Close()) }()
	if ra.Size() < smallLayer || ra.Size() > c.o.Max {
		return f, errNotWorth
	}
	if spare, err := c.spare(); err != nil || spare < 2*ra.Size() {
		return f, errors.Join(errNotWorth, err)
	}
	// A layer that the disk has spoiled has a copy that is well in itself, and would
	// stay when the layer is healed.
	verifier := layer.Verifier()
	blob := io.TeeReader(content.NewReader(ra), verifier)
	in, err := decompress(blob, zstd.WithDecoderConcurrency(1)) // on this thread, which is the one that is nice
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return f, err
	}
	out, err := os.CreateTemp(c.dir, unfinished)
	if err != nil {
		return f, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.Close(), os.Remove(out.Name()))
		}
	}()
	f = copyFile{layer: layer, used: time.Now()}
	if err := c.pack(ctx, &f, out, in); err != nil {
		return f, err
	}
	if _, err := io.Copy(io.Discard, blob); err != nil {
		return f, fmt.Errorf("read layer: %w", err)
	}
	if !verifier.Verified() {
		return f, fmt.Errorf("stored layer has another digest: %w", errdefs.ErrDataLoss)
	}
	// Without a sync, which could hold up the end of the process for long: a copy that a
	// crash has spoiled is found out.
	return f, c.publish(f, out)
}

// pack writes a copy.
func (c *Copies) pack(ctx context.Context, f *copyFile, out io.Writer, in io.Reader) error {
	digester := digest.SHA256.Digester()
	counted := &counter{w: out, max: c.o.Max}
	z := s2.NewWriter(counted, s2.WriterConcurrency(1)) // on this thread, too
	chunk := make([]byte, chunkSize)
	for {
		n, err := fillChunk(in, chunk)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("decompress layer: %w", err)
		}
		_, _ = digester.Hash().Write(chunk[:n]) // a hash has no errors
		f.size += int64(n)
		if _, werr := z.Write(chunk[:n]); werr != nil {
			return werr
		}
		if err != nil {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	f.plain, f.bytes = digester.Digest(), counted.n
	return nil
}

// publish gives a copy its name, and makes room for it.
func (c *Copies) publish(f copyFile, out *os.File) error {
	c.shrink(c.o.Max - f.bytes)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := os.Rename(out.Name(), filepath.Join(c.dir, f.name())); err != nil {
		return err
	}
	c.files[f.layer] = f
	c.total += f.bytes
	return out.Close()
}

// counter counts what is written, up to a bound.
type counter struct {
	w      io.Writer
	n, max int64
}

func (c *counter) Write(p []byte) (int, error) {
	if c.n+int64(len(p)) > c.max {
		return 0, errNotWorth
	}
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
