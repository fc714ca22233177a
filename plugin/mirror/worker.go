package mirror

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// worker is a thread that answers at the door, and what it keeps from one request to
// the next.
type worker struct {
	*porter
	events [heard]unix.EpollEvent
	in     [4 << 10]byte // of one request, or what has come of it
	out    []byte
	late   *time.Timer // runs while a batch is answered
}

// work answers until the door is closed, or there are workers enough. It keeps its
// thread: to be moved from one to the other costs it a turn of whoever else runs.
func (p *porter) work() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w := &worker{porter: p, late: time.AfterFunc(grace, p.help)}
	defer w.late.Stop()
	for g := p.next(w); g != nil; g = p.next(w) {
		w.attend(g)
	}
}

// attend reads what a guest has to say, and answers it, or lets it in.
func (w *worker) attend(g *guest) {
	n, err := read(int(g.fd), w.in[:])
	if errors.Is(err, unix.EAGAIN) {
		w.again(g)
		return
	}
	if n == 0 || err != nil { // the client has left
		w.leave(g)
		return
	}
	for said := w.in[:n]; len(said) > 0; {
		p, used, ok := parsePlain(said)
		var answer []byte
		if ok {
			answer, ok = w.door.answer(w.out[:0], p)
		}
		if !ok {
			w.letIn(g, said, nil)
			return
		}
		w.out, said = answer, said[used:]
		sent, err := write(int(g.fd), answer)
		switch {
		case err != nil && !errors.Is(err, unix.EAGAIN):
			w.leave(g)
			return
		case sent < len(answer): // it asks for much, and takes little
			w.letIn(g, said, answer[sent:])
			return
		}
	}
	w.again(g)
}

// letIn gives a guest to net/http, with what it has said and what it is owed.
func (w *worker) letIn(g *guest, said, owed []byte) {
	c, err := w.connOf(g)
	if err != nil {
		w.door.listener.left()
		w.door.listener.warn("connection closed: net/http cannot have it", err)
		return
	}
	c.said, c.owed = slices.Clone(said), slices.Clone(owed)
	w.door.letIn(c)
	runtime.Gosched() // whoever has it now goes first
}

// connOf makes a net.Conn of a guest. The guest's descriptor is closed then, also if
// that fails.
func (p *porter) connOf(g *guest) (*conn, error) {
	p.mu.Lock()
	delete(p.guests, g.fd)
	p.mu.Unlock()
	f := os.NewFile(uintptr(g.fd), "connection")
	defer f.Close()
	if err := p.poller.remove(g.token); err != nil {
		return nil, err
	}
	c, err := net.FileConn(f) // a copy
	lent := isOutOfFiles(err)
	if lent { // for a moment there are two
		p.door.listener.lendSpare()
		c, err = net.FileConn(f)
	}
	_ = f.Close() // only of the copy anything is wanted
	if lent {
		p.door.listener.keepSpare()
	}
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("connection from %s: got a %T", c.RemoteAddr(), c), c.Close())
	}
	return &conn{TCPConn: tcp, door: p.door}, nil
}

func read(fd int, p []byte) (int, error) {
	return untilDone("read", func() (int, error) { return unix.Read(fd, p) })
}

func write(fd int, p []byte) (int, error) {
	return untilDone("write", func() (int, error) { return unix.Write(fd, p) })
}
