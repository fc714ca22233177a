package mirror

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// poller tells which of many descriptors have something to read: epoll(7). Go's own
// poller has a goroutine for each of them, which takes memory while it waits, and a
// switch when something comes.
type poller struct {
	fd  int
	end int // an eventfd, readable once all is over
}

// token names a descriptor. Its serial tells it from another of the same number, that
// was closed meanwhile.
type token struct{ fd, serial int32 }

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	end, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("eventfd", err), unix.Close(fd))
	}
	p := &poller{fd: fd, end: end}
	if err := p.add(token{fd: int32(end)}); err != nil { //nolint:gosec // descriptors are small
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// add has a descriptor waited for.
func (p *poller) add(t token) error { return p.control(unix.EPOLL_CTL_ADD, t, unix.EPOLLIN) }

// mute has nothing told of a descriptor, but that its connection is broken, until
// unmute.
func (p *poller) mute(t token) error   { return p.control(unix.EPOLL_CTL_MOD, t, unix.EPOLLONESHOT) }
func (p *poller) unmute(t token) error { return p.control(unix.EPOLL_CTL_MOD, t, unix.EPOLLIN) }

// remove must be called before a descriptor is closed of which there is a copy: the
// kernel goes by what it stands for.
func (p *poller) remove(t token) error { return p.control(unix.EPOLL_CTL_DEL, t, 0) }

func (p *poller) control(op int, t token, events uint32) error {
	event := unix.EpollEvent{Events: events, Fd: t.fd, Pad: t.serial}
	if err := unix.EpollCtl(p.fd, op, int(t.fd), &event); err != nil {
		return fmt.Errorf("descriptor %d: %w", t.fd, os.NewSyscallError("epoll_ctl", err))
	}
	return nil
}

// wait returns the next events, as many as there is room for. A descriptor comes again
// as long as there is something to read.
func (p *poller) wait(events []unix.EpollEvent) (int, error) {
	for {
		n, err := unix.EpollWait(p.fd, events, -1)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), os.NewSyscallError("epoll_wait", err)
		}
	}
}

// wake has all that wait, and will, return at once.
func (p *poller) wake() error {
	_, err := unix.Write(p.end, binary.NativeEndian.AppendUint64(nil, 1))
	return os.NewSyscallError("write", err)
}

func (p *poller) close() error {
	return os.NewSyscallError("close", errors.Join(unix.Close(p.fd), unix.Close(p.end)))
}
