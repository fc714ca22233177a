package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// streams are clients that read a large body, again and again. They throw it away
// as it comes: what they would do with it is not what is measured.
type streams struct {
	server
	path    string
	size    int64
	clients int
	length  time.Duration
}

func (q streams) run(ctx context.Context) (figures, error) {
	before, err := readMeter(q.group)
	if err != nil {
		return figures{}, err
	}
	begun := time.Now()
	var bytes atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range q.clients {
		group.Go(func() error { return q.client(ctx, begun.Add(q.length), &bytes) })
	}
	if err := group.Wait(); err != nil {
		return figures{}, err
	}
	elapsed := time.Since(begun).Seconds()
	after, err := readMeter(q.group)
	if err != nil {
		return figures{}, err
	}
	total := float64(bytes.Load())
	return figures{rate: total / elapsed, cost: after.sub(before, total)}, nil
}

// client reads whole bodies until it is late enough.
func (q streams) client(ctx context.Context, until time.Time, bytes *atomic.Int64) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", q.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	from := bufio.NewReaderSize(conn, 4<<10)
	buf := make([]byte, 256<<10)
	for time.Now().Before(until) {
		if _, err := fmt.Fprintf(conn, requestHead, "GET", q.path, q.address); err != nil {
			return err
		}
		resp, err := http.ReadResponse(from, nil) //nolint:bodyclose // the body is read below, from the connection
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK || resp.ContentLength != q.size {
			return fmt.Errorf("GET %s: %s with %d bytes", q.path, resp.Status, resp.ContentLength)
		}
		// net/http's body would read in pieces of the bufio.Reader's size.
		left, n := q.size, 0
		for left > 0 {
			if from.Buffered() > 0 {
				n, err = from.Read(buf[:min(left, int64(from.Buffered()))])
			} else {
				n, err = conn.Read(buf[:min(left, int64(len(buf)))])
			}
			left -= int64(n)
			if err != nil {
				return fmt.Errorf("GET %s: %d bytes are missing: %w", q.path, left, unexpected(err))
			}
		}
		bytes.Add(q.size)
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF { //nolint:errorlint // it is what Read returns, as it is
		return io.ErrUnexpectedEOF
	}
	return err
}
