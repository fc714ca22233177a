package mirror

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// sendLeast is from which size on a body sends itself. What is smaller is sent with
// its header as one.
const sendLeast = 256 << 10

// sender is a body that can write itself to a socket: see cache.Blob.
type sender interface {
	io.ReadSeeker
	io.ReaderAt
	SendAt(fd int, off, n int64) (int, error)
}

// sending is a sender's part that is to be sent. net/http reads the first bytes of
// it, to send them with the header, and gives the rest to the connection (see
// conn.ReadFrom), if that is one of ours; else it reads all.
type sending struct {
	sender    sender
	off, left int64
	unread    error // why it could not be read
}

// newSending returns nil for what is to be copied.
func newSending(src io.Reader) *sending {
	part, ok := src.(*io.LimitedReader) // of http.ServeContent
	if !ok || part.N < sendLeast {
		return nil
	}
	s, ok := part.R.(sender)
	if !ok {
		return nil
	}
	off, err := s.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil
	}
	return &sending{sender: s, off: off, left: part.N}
}

// Read implements io.Reader.
func (s *sending) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.sender.ReadAt(p[:min(int64(len(p)), s.left)], s.off)
	s.advance(n)
	switch {
	case n > 0 || err == nil:
		return n, nil // an error comes again
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF // somebody shortened the file
	}
	s.unread = err
	return 0, err
}

func (s *sending) advance(n int) {
	s.off += int64(n)
	s.left -= int64(n)
}

// sendTo sends what is left, and copies what does not send itself. Between two pieces
// a connection that was closed is noticed. They make no garbage: see
// TestAllocationsOfSending.
func (s *sending) sendTo(c *net.TCPConn) (sent int64, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	piece := func(fd uintptr) (done bool) { // as much as the socket takes
		n, err = s.sender.SendAt(int(fd), s.off, s.left)
		return !errors.Is(err, syscall.EAGAIN)
	}
	for s.left > 0 {
		n = 0
		werr := raw.Write(piece)
		err = errors.Join(werr, err)
		sent += int64(n)
		s.advance(n)
		if errors.Is(err, errors.ErrUnsupported) {
			more, err := io.Copy(writerOnly{c}, s)
			return sent + more, err
		}
		if err != nil {
			return sent, fmt.Errorf("send to %s: %w", c.RemoteAddr(), err)
		}
	}
	return sent, nil
}

// writerOnly hides what else a connection can.
type writerOnly struct{ io.Writer }
