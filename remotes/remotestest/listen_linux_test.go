package remotestest

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

func TestStoppedPortStaysReserved(t *testing.T) {
	t.Parallel()
	r := New(t)
	r.Stop()
	// Without SO_REUSEADDR, which only the registry needs, even a socket that
	// does not listen keeps others away, as it does from ports the kernel chooses.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var setErr error
		err := c.Control(func(fd uintptr) {
			setErr = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0)
		})
		return errors.Join(err, setErr)
	}}
	ln, err := lc.Listen(t.Context(), "tcp4", r.Host())
	if err == nil {
		_ = ln.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%s: got %v, want address in use", r.Host(), err)
	}
	r.Start()
}
