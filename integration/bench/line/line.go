package line

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Shape says how slow a line is. The zero value is as fast as the relay.
type Shape struct {
	// RTT is the time of a round trip.
	RTT time.Duration
	// Rate in bytes a second is what all connections have together, towards the
	// client; 0: any.
	Rate int64
	// PerConn in bytes a second is what one connection has at most; 0: any.
	PerConn int64
}

// Line is a relay that listens on loopback.
type Line struct {
	listener net.Listener
	target   string
	shape    Shape
	shared   *pace
	ctx      context.Context // of all connections; Close ends it
	stop     context.CancelFunc
	serving  sync.WaitGroup
}

// Start begins to relay to target, an address on loopback, on a port that the kernel
// chooses.
func Start(target string, shape Shape) (*Line, error) {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("line to %s: %w", target, err)
	}
	return Serve(ln, target, shape), nil
}

// Serve begins to relay what a listener takes, which Close closes.
func Serve(ln net.Listener, target string, shape Shape) *Line {
	l := &Line{listener: ln, target: target, shape: shape, shared: &pace{rate: shape.Rate}}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.serving.Go(l.accept)
	return l
}

// Addr is where it listens, as host:port.
func (l *Line) Addr() string { return l.listener.Addr().String() }

// Close ends the line and all its connections.
func (l *Line) Close() error {
	l.stop()
	err := l.listener.Close()
	l.serving.Wait()
	return err
}

func (l *Line) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return // closed
		}
		began := time.Now()
		l.serving.Go(func() {
			defer client.Close()
			server, err := new(net.Dialer).DialContext(l.ctx, "tcp4", l.target)
			if err != nil {
				return // the client sees its connection end
			}
			defer server.Close()
			l.relay(l.ctx, client, server, began)
		})
	}
}

// relay is one connection that a client began to make at began, until either side has
// ended it.
func (l *Line) relay(ctx context.Context, client, server net.Conn, began time.Time) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// A read that waits for more ends with its connection.
	defer context.AfterFunc(ctx, func() { _ = errors.Join(client.Close(), server.Close()) })()
	half := l.shape.RTT / 2
	up := direction{delay: half, earliest: began.Add(l.shape.RTT + half)}
	down := direction{delay: half, paces: []*pace{{rate: l.shape.PerConn}, l.shared}}
	var both sync.WaitGroup
	for _, way := range []struct {
		direction
		to, from net.Conn
	}{{up, server, client}, {down, client, server}} {
		both.Go(func() {
			if way.carry(ctx, way.to, way.from, func() error { return closeWrite(way.to) }) != nil {
				stop()
			}
		})
	}
	both.Wait()
}

// closeWrite tells the other side that nothing more comes.
func closeWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return conn.Close()
}
