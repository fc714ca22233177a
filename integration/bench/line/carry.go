package line

import (
	"context"
	"errors"
	"io"
	"time"
)

const (
	// chunk is what is carried at once: half a millisecond of a gigabit.
	chunk = 64 << 10
	// flying bounds the chunks of one direction that are on their way. 16 MiB are more
	// than any line here has between its ends.
	flying = 256
)

// direction is one way of a connection.
type direction struct {
	paces []*pace
	// delay of each byte, and when the first may arrive at the earliest.
	delay    time.Duration
	earliest time.Time
}

// parcel is bytes that are on their way, or the end behind them.
type parcel struct {
	data []byte
	at   time.Time
	end  error
}

// carry copies from one side to the other until the first has ended. The end arrives
// with the same delay, by end.
func (d direction) carry(ctx context.Context, to io.Writer, from io.Reader, end func() error) error {
	ctx, stop := context.WithCancelCause(ctx)
	way := make(chan parcel, flying)
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		if err = d.deliver(ctx, to, way, end); err != nil {
			stop(err)
		}
	}()
	d.collect(ctx, from, way)
	<-done
	stop(nil)
	return err
}

// collect reads, at the pace of the line.
func (d direction) collect(ctx context.Context, from io.Reader, way chan<- parcel) {
	defer close(way)
	for {
		buf := make([]byte, chunk)
		n, err := from.Read(buf)
		for _, p := range d.paces {
			if p.wait(ctx, n) != nil {
				return
			}
		}
		at := time.Now().Add(d.delay)
		if at.Before(d.earliest) {
			at = d.earliest
		}
		select {
		case way <- parcel{buf[:n], at, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// deliver writes each parcel at its time.
func (d direction) deliver(ctx context.Context, to io.Writer, way <-chan parcel, end func() error) error {
	for p := range way {
		if err := until(ctx, p.at); err != nil {
			return err
		}
		if _, err := to.Write(p.data); err != nil {
			return err
		}
		if errors.Is(p.end, io.EOF) {
			return end()
		}
		if p.end != nil {
			return p.end
		}
	}
	return context.Cause(ctx)
}
