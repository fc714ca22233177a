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
func startFront(target string) (*front, error) {
	l, err := line.Start(target, line.Shape{})
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddrPort(l.Addr())
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &front{addr: addr, alive: l}, nil
}

// die ends all connections; new ones find the address as how says.
func (f *front) die(how death) error {
	if err := f.alive.Close(); err != nil {
		return fmt.Errorf("end of an upstream: %w", err)
	}
	var err error
	switch how {
	case refused:
	case silent:
		err = f.fallSilent()
	case dropped:
		err = f.drop()
	}
	if err != nil {
		return fmt.Errorf("upstream that is %s: %w", how, err)
	}
	return nil
}

// Close ends what has taken the upstream's place. die comes before it.
func (f *front) Close() error {
	var errs []error
	for _, end := range f.ending {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// fallSilent takes connections and reads nothing of them.
func (f *front) fallSilent() error {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp4", f.addr.String())
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
