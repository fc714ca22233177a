package mirror

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller tells which of many descriptors have something to read: epoll(7). Go's own
// poller has a goroutine for each of them, which takes memory while it waits, and a
// switch when something comes.
//
// A thread in epoll_wait keeps one of Go's processors until Go's scheduler looks for it,
// up to 20 ms in a process that does little. So it is waited there only while much
// happens; else by way of Go's poller, which costs a switch, and keeps nothing.
type poller struct {
	fd   int
	end  int // an eventfd, readable once all is over
	file *os.File
	raw  syscall.RawConn // of file
	busy bool            // the last wait was short; of who waits
}

// short is a wait for which a processor may be kept.
const short = time.Millisecond

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
	if err := unix.SetNonblock(fd, true); err != nil { // else Go's poller does not take it
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(fd), unix.Close(end))
	}
	p := &poller{fd: fd, end: end, file: os.NewFile(uintptr(fd), "epoll")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, p.close())
	}
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
func (p *poller) wait(events []unix.EpollEvent) (n int, err error) {
	if p.busy {
		if n, err = p.look(events, short); n > 0 || err != nil {
			return n, err
		}
	}
	began := time.Now()
	rerr := p.raw.Read(func(uintptr) bool {
		n, err = p.look(events, 0)
		return n > 0 || err != nil
	})
	p.busy = time.Since(began) < short
	return n, errors.Join(rerr, err)
}

// look returns the next events that come within a time, if any do.
func (p *poller) look(events []unix.EpollEvent, within time.Duration) (int, error) {
	return untilDone("epoll_wait", func() (int, error) { return unix.EpollWait(p.fd, events, int(within.Milliseconds())) })
}

// untilDone makes a system call again as long as a signal ends it.
func untilDone(name string, call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), os.NewSyscallError(name, err)
		}
	}
}

// wake has all that wait, and will, return at once.
func (p *poller) wake() error {
	_, err := unix.Write(p.end, binary.NativeEndian.AppendUint64(nil, 1))
	return os.NewSyscallError("write", err)
}

func (p *poller) close() error {
	return errors.Join(p.file.Close(), os.NewSyscallError("close", unix.Close(p.end)))
}
