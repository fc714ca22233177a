package unpack

import (
	"archive/tar"
	"context"
	"io"
)

// tape is a stream that is read for the headers in it, and says which bytes were
// read.
type tape struct {
	ctx   context.Context //nolint:containedctx // archive/tar reads by io.Reader, which has none; a tape lives for one call
	in    *stream
	chunk *chunk
	at    int       // in the chunk
	taken []segment // read since the last header
}

// header reads the next entry's header. Its bytes are in taken.
func (t *tape) header() (*tar.Header, error) {
	t.taken = nil
	return tar.NewReader(t).Next() // one of its own, that does not look for the body that went before
}

// Read is for archive/tar, which reads no byte beyond the header.
func (t *tape) Read(p []byte) (int, error) {
	if len(t.taken) > chunks/2 {
		return 0, errUndealt // without those it keeps, too few would be left to go on
	}
	s, err := t.take(int64(len(p)))
	if err != nil {
		return 0, err
	}
	n := copy(p, s.data())
	if last := len(t.taken) - 1; last >= 0 && t.taken[last].chunk == s.chunk {
		t.taken[last].to = s.to
		s.chunk.release()
	} else {
		t.taken = append(t.taken, s)
	}
	return n, nil
}

// bytes is how many were read since the last header.
func (t *tape) bytes() (n int64) {
	for _, s := range t.taken {
		n += s.len()
	}
	return n
}

// take returns up to n bytes, and not none.
func (t *tape) take(n int64) (segment, error) {
	for t.chunk == nil || t.at == len(t.chunk.data) {
		t.next()
		var err error
		if t.chunk, err = t.in.next(t.ctx); err != nil {
			return segment{}, err
		}
	}
	s := segment{chunk: t.chunk, from: t.at, to: t.at + int(min(n, int64(len(t.chunk.data)-t.at)))}
	t.at = s.to
	t.chunk.users.Add(1)
	return s, nil
}

// close releases what is not read yet, and the header that nobody took.
func (t *tape) close() {
	t.next()
	for _, s := range t.taken {
		s.chunk.release()
	}
	t.taken = nil
}

// next releases the chunk that is read.
func (t *tape) next() {
	if t.chunk != nil {
		t.chunk.release()
	}
	t.chunk, t.at = nil, 0
}

var _ io.Reader = (*tape)(nil)
