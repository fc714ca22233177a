package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// requests are small requests over connections that stay open, each with one
// request at a time. One thread sends them all by epoll(7), so that most of the
// machine is the server's.
type requests struct {
	server
	method, path string
	body         []byte // that must come
	clients      int
	length       time.Duration
}

// As containerd asks, but for what differs with each request.
const requestHead = "%s %s?ns=docker.io HTTP/1.1\r\nHost: %s\r\nUser-Agent: containerd/v2.4.2\r\n" +
	"Accept: application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, " +
	"application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*\r\n\r\n"

// asker is one connection.
type asker struct {
	fd   int
	got  []byte
	sent time.Time
}

func (q requests) run(ctx context.Context) (_ figures, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return figures{}, fmt.Errorf("epoll: %w", err)
	}
	defer func() { _ = unix.Close(epoll) }()
	askers := map[int32]*asker{}
	defer func() {
		for _, a := range askers {
			_ = unix.Close(a.fd)
		}
	}()
	request := fmt.Appendf(nil, requestHead, q.method, q.path, q.address)
	for range q.clients {
		fd, err := connect(q.address)
		if err != nil {
			return figures{}, err
		}
		askers[int32(fd)] = &asker{fd: fd, got: make([]byte, 0, 64<<10)}
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return figures{}, fmt.Errorf("epoll: %w", err)
		}
	}
	before, err := readMeter(q.group)
	if err != nil {
		return figures{}, err
	}
	begun := time.Now()
	for _, a := range askers {
		if err := a.ask(request, begun); err != nil {
			return figures{}, err
		}
	}
	var took []time.Duration
	events := make([]unix.EpollEvent, 512)
	for now := begun; now.Sub(begun) < q.length; {
		n, err := unix.EpollWait(epoll, events, 1000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 || ctx.Err() != nil {
			return figures{}, fmt.Errorf("%s %s: no answer for a second: %w", q.method, q.path, errors.Join(err, ctx.Err()))
		}
		now = time.Now()
		for _, e := range events[:n] {
			a := askers[e.Fd]
			whole, err := a.take(q.method == "HEAD", q.body)
			if err != nil {
				return figures{}, fmt.Errorf("%s %s: %w", q.method, q.path, err)
			}
			if !whole {
				continue
			}
			took = append(took, now.Sub(a.sent))
			if err := a.ask(request, now); err != nil {
				return figures{}, err
			}
		}
	}
	elapsed := time.Since(begun).Seconds()
	after, err := readMeter(q.group)
	if err != nil {
		return figures{}, err
	}
	slices.Sort(took)
	n := float64(len(took))
	return figures{rate: n / elapsed, p99: took[len(took)*99/100], cost: after.sub(before, n)}, nil
}

func connect(address string) (int, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	if err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), unix.SetNonblock(fd, true)); err != nil {
		return 0, errors.Join(fmt.Errorf("connect to %s: %w", address, err), unix.Close(fd))
	}
	return fd, nil
}

// ask sends the request. It is small enough to be taken at once.
func (a *asker) ask(request []byte, now time.Time) error {
	a.got, a.sent = a.got[:0], now
	if n, err := unix.Write(a.fd, request); err != nil || n < len(request) {
		return fmt.Errorf("request: %d bytes taken: %w", n, err)
	}
	return nil
}

// take reads what has come, and reports whether it is all.
func (a *asker) take(head bool, body []byte) (whole bool, err error) {
	n, err := unix.Read(a.fd, a.got[len(a.got):cap(a.got)])
	if errors.Is(err, unix.EAGAIN) {
		return false, nil
	}
	if err != nil || n == 0 {
		return false, fmt.Errorf("connection ended: %w", err)
	}
	a.got = a.got[:len(a.got)+n]
	end := bytes.Index(a.got, []byte("\r\n\r\n"))
	if end < 0 {
		return false, nil
	}
	fields := a.got[:end]
	if !bytes.HasPrefix(fields, []byte("HTTP/1.1 200 ")) {
		return false, fmt.Errorf("answer is %.100q", fields)
	}
	_, length, ok := bytes.Cut(fields, []byte("\r\nContent-Length: "))
	length, _, _ = bytes.Cut(length, []byte("\r\n"))
	size, err := strconv.Atoi(string(length))
	if !ok || err != nil {
		return false, fmt.Errorf("answer has no length: %.300q", fields)
	}
	got := a.got[end+4:]
	if head {
		return true, nil
	}
	if len(got) < size {
		return false, nil
	}
	if !bytes.Equal(got, body) {
		return false, fmt.Errorf("answer has %d other bytes, want %d", len(got), len(body))
	}
	return true, nil
}
