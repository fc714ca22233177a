package mirror

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setStall has the kernel end a connection on which what was sent is not taken
// for so long: neither acknowledged, nor let out by a window that stays shut
// (tcp(7), TCP_USER_TIMEOUT). Connections have it of the socket that accepts
// them. A deadline of net.Conn would bound the whole answer instead, and one that
// is slow, but steady, is not to be cut.
func setStall(c syscall.RawConn, stall time.Duration) error {
	if stall <= 0 {
		return nil
	}
	var failed error
	if err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(stall.Milliseconds()))
	}); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt TCP_USER_TIMEOUT", failed)
}
