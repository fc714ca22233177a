package unpack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

const (
	// readBuffer is how much of a compressed layer is read at a time.
	readBuffer = 256 << 10
	// maxWindow bounds the memory that a zstd layer may ask for: zstd's own program
	// takes no more either, unless it is told to.
	maxWindow = 128 << 20
)

// stream is a layer as a tar stream, to be read once. Its decompression runs ahead,
// and beside it its digest is made, until all is read or it is closed.
type stream struct {
	cancel context.CancelFunc
	free   chan *chunk // to be filled
	out    chan *chunk // filled, in order
	toSum  chan *chunk // the same ones
	err    error       // behind the last chunk; written before out is closed
	done   sync.WaitGroup
	digest digest.Digest // once done
	size   int64         // once done
}

// newStream begins to read what decompresses a layer, and closes it in the end.
func newStream(ctx context.Context, d io.ReadCloser) *stream {
	ctx, cancel := context.WithCancel(ctx)
	s := &stream{
		cancel: cancel, free: make(chan *chunk, chunks),
		out: make(chan *chunk, chunks), toSum: make(chan *chunk, chunks),
	}
	for range chunks {
		s.free <- &chunk{free: s.free}
	}
	s.done.Go(func() {
		defer close(s.toSum)
		defer close(s.out)
		s.err = errors.Join(s.fill(ctx, d), d.Close())
	})
	s.done.Go(s.sum)
	return s
}

// decompressorOf reads a layer, which stays open. What it is compressed with is told
// by its first bytes, as containerd does.
func decompressorOf(ra content.ReaderAt) (io.ReadCloser, error) {
	return decompress(content.NewReader(ra))
}

func decompress(layer io.Reader, opts ...zstd.DOption) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(layer, readBuffer)
	magic, err := in.Peek(10)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	switch compression.DetectCompression(magic) {
	case compression.Gzip:
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("read gzip: %w", err)
		}
		return z, nil
	case compression.Zstd:
		z, err := zstd.NewReader(in, append(opts, zstd.WithDecoderMaxWindow(maxWindow))...)
		if err != nil {
			return nil, fmt.Errorf("read zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	default:
		return io.NopCloser(in), nil
	}
}

// fill decompresses until the end, which is no error.
func (s *stream) fill(ctx context.Context, d io.Reader) error {
	for {
		var c *chunk
		select {
		case c = <-s.free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if c.buf == nil { // a small layer needs but one
			c.buf = make([]byte, chunkSize)
		}
		n, err := fillChunk(d, c.buf)
		c.data = c.buf[:n]
		c.users.Store(2)
		s.out <- c // there are no more chunks than have room in it
		s.toSum <- c
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("decompress layer: %w", err)
		}
	}
}

// fillChunk is io.ReadFull, but tells an end from a broken stream, which is
// io.ErrUnexpectedEOF, too.
func fillChunk(d io.Reader, chunk []byte) (n int, err error) {
	for n < len(chunk) && err == nil {
		var more int
		more, err = d.Read(chunk[n:])
		n += more
	}
	return n, err
}

// sum makes the digest of all that is decompressed.
func (s *stream) sum() {
	digester := digest.Canonical.Digester()
	for c := range s.toSum {
		_, _ = digester.Hash().Write(c.data) // a hash has no errors
		s.size += int64(len(c.data))
		c.release()
	}
	s.digest = digester.Digest()
}

// next returns the next chunk, for who releases it, or io.EOF.
func (s *stream) next(ctx context.Context) (*chunk, error) {
	select {
	case c, ok := <-s.out:
		if ok {
			return c, nil
		}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s.err != nil {
		return nil, s.err
	}
	return nil, io.EOF
}

// rest reads what is behind the end of the archive.
func (s *stream) rest(ctx context.Context) error {
	for {
		c, err := s.next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		c.release()
	}
}

// Close ends the decompression, and waits for that.
func (s *stream) Close() error {
	s.cancel()
	s.done.Wait()
	return nil
}
