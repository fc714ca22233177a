package main

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

// TestAnswers: what hangs or is not there does not answer; what refuses does.
func TestAnswers(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := make(chan struct{})
	go func() { // resets whoever comes
		defer close(sent)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = c.Close()
		}
	}()
	refuses := httptest.NewServer(http.NotFoundHandler())
	defer refuses.Close()
	hung := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hung }))
	defer hangs.Close()
	defer close(hung)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	client := &http.Client{Timeout: 200 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
	for name, url := range map[string]string{"refuses": refuses.URL, "resets": "http://" + l.Addr().String()} {
		for range 10 {
			if err := answers(t.Context(), client, url); err != nil {
				t.Errorf("one that %s: %v, want that it answers", name, err)
			}
		}
	}
	if err := answers(t.Context(), client, hangs.URL); !errors.Is(err, os.ErrDeadlineExceeded) && !os.IsTimeout(err) {
		t.Errorf("one that hangs: %v, want a timeout", err)
	}
	if err := answers(t.Context(), client, gone.URL); err == nil {
		t.Error("one that is gone answers")
	}
	_ = l.Close()
	<-sent
}
