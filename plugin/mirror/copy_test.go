package mirror

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"syscall"
	"testing"
	"testing/iotest"
)

// kernel is a response writer that would have the kernel send a file.
type kernel struct {
	sink
	body   bytes.Buffer
	sizes  []int
	closed int // takes no more than so many bytes; 0: any number
}

func (k *kernel) Write(p []byte) (int, error) {
	if k.closed > 0 && k.body.Len()+len(p) > k.closed {
		return 0, syscall.EPIPE
	}
	k.sizes = append(k.sizes, len(p))
	return k.body.Write(p)
}

func (k *kernel) ReadFrom(io.Reader) (int64, error) {
	return 0, errors.New("the kernel is asked to send it")
}

// A body is copied in pieces of the buffer's size. Whose fault it is that it is
// short is kept apart: a disk's failure is not the client's, nor the other way.
func TestBodyIsCopied(t *testing.T) {
	t.Parallel()
	var b buffers
	const size = 5*copyBuffer + 7
	data := noise(1, size)
	for name, tc := range map[string]struct {
		src            io.Reader
		closed         int
		sent           int64
		unread, failed error
	}{
		"whole":              {src: bytes.NewReader(data), sent: size},
		"empty":              {src: bytes.NewReader(nil)},
		"end with the bytes": {src: iotest.DataErrReader(bytes.NewReader(data)), sent: size},
		"disk fails":         {src: io.MultiReader(bytes.NewReader(data[:copyBuffer]), iotest.ErrReader(syscall.EIO)), sent: copyBuffer, unread: syscall.EIO},
		"client leaves":      {src: bytes.NewReader(data), closed: 2*copyBuffer + 1, sent: 2 * copyBuffer, failed: syscall.EPIPE},
	} {
		k := &kernel{sink: sink{header: http.Header{}}, closed: tc.closed}
		rec := &recorder{ResponseWriter: k, buffers: &b}
		n, err := rec.ReadFrom(struct{ io.Reader }{tc.src})
		if n != tc.sent || rec.bytes != tc.sent || !bytes.Equal(k.body.Bytes(), data[:tc.sent]) {
			t.Errorf("%s: %d bytes, %d counted, %d written, want %d", name, n, rec.bytes, k.body.Len(), tc.sent)
		}
		if !errors.Is(rec.unread, tc.unread) || !errors.Is(rec.failed, tc.failed) || (err == nil) != (tc.unread == nil && tc.failed == nil) {
			t.Errorf("%s: %v; read: %v, sent: %v", name, err, rec.unread, rec.failed)
		}
		for i, piece := range k.sizes {
			if piece != copyBuffer && i < len(k.sizes)-1 && name == "whole" {
				t.Errorf("%s: piece %d has %d bytes", name, i, piece)
			}
		}
		if !rec.wroteHeader || k.status != http.StatusOK {
			t.Errorf("%s: status %d", name, k.status)
		}
	}
}
