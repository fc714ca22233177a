package remotestest

import (
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// reservePort takes a loopback port and keeps it until release is called.
//
// The port is held by a socket that is bound and never listens: connections to
// it are refused, real listeners may bind beside it (SO_REUSEADDR, which Go
// sets on every listener), and the kernel gives it to nobody else. Without it,
// a test running in parallel could take the port between Stop and Start.
func reservePort() (addr string, release func(), err error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = syscall.Close(fd) // the first error is the one to tell
		}
	}()
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return "", nil, fmt.Errorf("setsockopt: %w", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", nil, fmt.Errorf("bind: %w", err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return "", nil, fmt.Errorf("getsockname: %w", err)
	}
	in4, ok := sa.(*syscall.SockaddrInet4)
	if !ok {
		return "", nil, fmt.Errorf("getsockname: got %T, want IPv4", sa)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(in4.Port)), func() { _ = syscall.Close(fd) }, nil
}
