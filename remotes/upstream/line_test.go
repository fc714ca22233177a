package upstream

import (
	"net"
	"sync"
	"testing"
	"time"
)

// line is a line to a server, in wall time: for benchmarks, and for tests that
// do not look at the time.
type line struct {
	to     string
	delay  time.Duration // one way
	single float64       // bytes a second of each connection to the client; 0: no limit
	shared float64       // and of all together

	mu          sync.Mutex
	free        time.Time // of all together
	connections int
}

// listen serves the line until the test ends, and returns its address.
func (l *line) listen(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	all.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp4", l.to)
			if err != nil {
				client.Close()
				continue
			}
			mu.Lock()
			open[client], open[server] = true, true
			mu.Unlock()
			l.mu.Lock()
			l.connections++
			l.mu.Unlock()
			all.Go(func() { l.carry(client, server, false) })
			all.Go(func() {
				l.carry(server, client, true)
				mu.Lock()
				delete(open, client)
				delete(open, server)
				mu.Unlock()
			})
		}
	})
	return ln.Addr().String()
}

type parcel struct {
	due  time.Time
	data []byte
}

// carry moves bytes from one end to the other until either is closed.
func (l *line) carry(from, to net.Conn, bounded bool) {
	defer from.Close()
	defer to.Close()
	parcels := make(chan parcel, 64) // what is on its way
	var all sync.WaitGroup
	defer all.Wait()
	defer close(parcels)
	all.Go(func() {
		failed := false
		for p := range parcels {
			if failed {
				continue
			}
			<-time.After(time.Until(p.due))
			if _, err := to.Write(p.data); err != nil {
				failed = true
				from.Close()
			}
		}
	})
	var free time.Time
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			due := time.Now()
			if bounded {
				due = l.due(n, &free)
			}
			parcels <- parcel{due: due.Add(l.delay), data: append([]byte(nil), buf[:n]...)}
		}
		if err != nil {
			return
		}
	}
}

// due is when n bytes of a connection have come through.
func (l *line) due(n int, free *time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	take := func(free *time.Time, speed float64) {
		if speed <= 0 {
			return
		}
		if free.Before(now) {
			*free = now
		}
		*free = free.Add(time.Duration(float64(n) / speed * float64(time.Second)))
	}
	take(free, l.single)
	take(&l.free, l.shared)
	due := now
	for _, t := range []time.Time{*free, l.free} {
		if t.After(due) {
			due = t
		}
	}
	return due
}
