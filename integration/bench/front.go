package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/integration/bench/line"
)

// death is how an upstream is gone.
type death string

// Refused: nobody listens there. Silent: connections are taken, and nothing is said.
// Dropped: packets get no answer at all.
const (
	refused death = "refused"
	silent  death = "silent"
	dropped death = "packets dropped"
)

// front is an address before an upstream, which is alive until it dies.
type front struct {
	addr   netip.AddrPort
	alive  *line.Line
	ending []func() error
}

// startFront begins to relay to an upstream.
func startFront(ctx context.Context, target string) (*front, error) {
	f := &front{}
	if err := f.hold(); err != nil {
		return nil, errors.Join(fmt.Errorf("front of %s: %w", target, err), f.Close())
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp4", f.addr.String())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("front of %s: %w", target, err), f.Close())
	}
	f.alive = line.Serve(ln, target, line.Shape{})
	return f, nil
}

// hold keeps a port of the kernel's choice for as long as the front is there: by a
// socket that never listens, so that nobody else is given the port, and those who
// connect while nobody else listens are refused.
func (f *front) hold() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f.ending = append(f.ending, func() error { return unix.Close(fd) })
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})); err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	to, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return fmt.Errorf("a socket of IPv4 has the name %v", name)
	}
	f.addr = netip.AddrPortFrom(netip.AddrFrom4(to.Addr), uint16(to.Port))
	return nil
}

// die ends all connections; new ones find the address as how says.
func (f *front) die(ctx context.Context, how death) error {
	if err := f.alive.Close(); err != nil {
		return fmt.Errorf("end of an upstream: %w", err)
	}
	f.alive = nil
	var err error
	switch how {
	case refused:
	case silent:
		err = f.fallSilent(ctx)
	case dropped:
		err = f.drop()
	}
	if err != nil {
		return fmt.Errorf("upstream that is %s: %w", how, err)
	}
	return nil
}

// Close ends it, alive or dead.
func (f *front) Close() error {
	var errs []error
	if f.alive != nil {
		errs = append(errs, f.alive.Close())
	}
	for _, end := range f.ending {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// fallSilent takes connections and reads nothing of them.
func (f *front) fallSilent(ctx context.Context) error {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp4", f.addr.String())
	if err != nil {
		return err
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return // closed
			}
			defer conn.Close()
		}
	})
	f.ending = append(f.ending, func() error {
		err := ln.Close()
		accepting.Wait()
		return err
	})
	return nil
}

// drop has a listener whose queue is full: the kernel drops what would make another
// connection, as a firewall would, and needs no rules and no root for it.
func (f *front) drop() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f.ending = append(f.ending, func() error { return unix.Close(fd) })
	to := &unix.SockaddrInet4{Port: int(f.addr.Port()), Addr: f.addr.Addr().As4()}
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, to), unix.Listen(fd, 0)); err != nil {
		return err
	}
	// One more than the queue is long, and some to be sure.
	for range 4 {
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		f.ending = append(f.ending, func() error { return unix.Close(client) })
		if err := unix.Connect(client, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return err
		}
	}
	return nil
}
