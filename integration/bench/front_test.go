package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestDeaths(t *testing.T) {
	t.Parallel()
	im, _ := makeImage(t, small(7))
	u, err := startUpstream(im)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	for how, check := range map[death]func(t *testing.T, addr string){
		refused: func(t *testing.T, addr string) {
			if _, err := net.Dial("tcp4", addr); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("got %v, want that it refuses", err)
			}
		},
		silent: func(t *testing.T, addr string) {
			conn, err := net.Dial("tcp4", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, err = io.WriteString(conn, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
			if err := errors.Join(err, conn.SetReadDeadline(time.Now().Add(50*time.Millisecond))); err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %d bytes, %v, want nothing", n, err)
			}
		},
		dropped: func(t *testing.T, addr string) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := new(net.Dialer).DialContext(ctx, "tcp4", addr); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want no answer", err)
			}
		},
	} {
		t.Run(string(how), func(t *testing.T) {
			t.Parallel()
			f, err := startFront(t.Context(), u.Addr())
			if err != nil {
				t.Fatal(err)
			}
			if status, _ := ask(t, "GET", "http://"+f.addr.String()+"/v2/", ""); status != 200 {
				t.Errorf("alive: status %d", status)
			}
			if err := f.die(t.Context(), how); err != nil {
				t.Fatal(err)
			}
			check(t, f.addr.String())
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
