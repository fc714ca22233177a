//go:build !linux

package remotestest

import (
	"context"
	"net"
)

// reservePort finds a free loopback port. Elsewhere than on Linux nothing keeps
// it free, so a busy machine may take it while the registry is stopped.
func reservePort() (addr string, release func(), err error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	return ln.Addr().String(), func() {}, ln.Close()
}
