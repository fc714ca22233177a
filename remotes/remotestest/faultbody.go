package remotestest

import (
	"net/http"
	"strconv"
	"time"
)

// bodyWriter lets a fault change the header just before it is sent and take
// the body over piece by piece.
type bodyWriter struct {
	http.ResponseWriter
	header func(http.Header)         // nil leaves the header
	body   func(off int64, p []byte) // writes p, at this offset of the body, or does not
	off    int64                     // body bytes that the next handler has written
	sent   bool                      // the header has gone
}

func (w *bodyWriter) WriteHeader(status int) {
	if !w.sent && status >= http.StatusOK {
		w.sent = true
		if w.header != nil {
			w.header(w.Header())
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write reports p as written whatever the fault does with it: the content
// behind the fault must not notice.
func (w *bodyWriter) Write(p []byte) (int, error) {
	if !w.sent {
		w.WriteHeader(http.StatusOK)
	}
	w.body(w.off, p)
	w.off += int64(len(p))
	return len(p), nil
}

// Unwrap lets http.ResponseController flush.
func (w *bodyWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// flush sends what net/http still buffers; the header too if it has not gone.
func flush(w http.ResponseWriter) {
	_ = http.NewResponseController(w).Flush() // fails only when the client is gone
}

// send writes p, or cuts the connection when the client is gone, so that a
// fault does not work on for nobody.
func send(w http.ResponseWriter, p []byte) {
	if _, err := w.Write(p); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// atByte calls f once, when n bytes of the body are sent and flushed and there
// are more to come.
func atByte(n int64, f func(r *http.Request)) FaultFunc {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		reached := false
		next.ServeHTTP(&bodyWriter{ResponseWriter: w, body: func(off int64, p []byte) {
			if k := n - off; !reached && k < int64(len(p)) {
				reached = true
				send(w, p[:k])
				p = p[k:]
				flush(w)
				f(r)
			}
			send(w, p)
		}}, r)
	}
}

// HangBody sends the header and n bytes of the body, then nothing until the
// client goes or the registry stops. A body of n bytes or fewer is untouched.
func HangBody(n int64) FaultFunc {
	return atByte(n, func(r *http.Request) {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	})
}

// CutBody sends the header and n bytes of the body, then cuts the connection:
// the client reads n bytes and io.ErrUnexpectedEOF or a reset. A body of n
// bytes or fewer is untouched.
func CutBody(n int64) FaultFunc {
	return atByte(n, func(*http.Request) { panic(http.ErrAbortHandler) })
}

// HeaderOnly sends the true header, Content-Length included, and cuts the
// connection where the body should begin. An empty body is untouched.
func HeaderOnly() FaultFunc { return CutBody(0) }

// Gate sends the header and n bytes of the body and holds the rest until
// release is closed or gives a value; each value lets one response pass. A
// body of n bytes or fewer is untouched. A response whose Request.Bytes is n
// is at its gate or about to flush what leads up to it.
func Gate(n int64, release <-chan struct{}) FaultFunc {
	return atByte(n, func(r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	})
}

// GateHeader holds the whole answer until release is closed or gives a value.
func GateHeader(release <-chan struct{}) FaultFunc {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		select {
		case <-release:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	}
}

// ShortBody sends only the first n bytes with a Content-Length of n: the body
// ends cleanly, and only its digest or size tells. HEAD shows n as well.
func ShortBody(n int64) FaultFunc {
	return resized(func(int64) int64 { return n }, n)
}

// WrongContentLength sends a Content-Length that is off by delta. With a
// positive one the body breaks off after its true bytes; with a negative one
// it ends cleanly and too early. HEAD shows the wrong length too.
func WrongContentLength(delta int64) FaultFunc {
	return resized(func(size int64) int64 { return max(0, size+delta) }, -1)
}

// resized replaces a Content-Length by length of it and sends no more than
// that, nor than limit unless negative.
func resized(length func(int64) int64, limit int64) FaultFunc {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		end := limit
		next.ServeHTTP(&bodyWriter{
			ResponseWriter: w,
			header: func(h http.Header) {
				size, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
				if err != nil {
					return
				}
				if limit >= 0 {
					end = min(limit, size)
				} else {
					end = length(size)
				}
				h.Set("Content-Length", strconv.FormatInt(end, 10))
			},
			body: func(off int64, p []byte) {
				if end >= 0 {
					p = p[:min(int64(len(p)), max(0, end-off))]
				}
				send(w, p)
			},
		}, r)
	}
}

// ShortChunked sends only the first n bytes, chunked and without a
// Content-Length, and ends cleanly.
func ShortChunked(n int64) FaultFunc {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&bodyWriter{
			ResponseWriter: w,
			header:         func(h http.Header) { h.Del("Content-Length") },
			body: func(off int64, p []byte) {
				// Without an early flush net/http counts a small body itself
				// and sends its Content-Length.
				flush(w)
				send(w, p[:min(int64(len(p)), max(0, n-off))])
			},
		}, r)
	}
}

// WrongBytes inverts the byte at offset at of every body. The length stays
// right. A body of at bytes or fewer is untouched.
func WrongBytes(at int64) FaultFunc {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&bodyWriter{ResponseWriter: w, body: func(off int64, p []byte) {
			if k := at - off; k >= 0 && k < int64(len(p)) {
				p = append([]byte(nil), p...) // p may be the registry's own copy
				p[k] ^= 0xff
			}
			send(w, p)
		}}, r)
	}
}

// Slow sends the body at this many bytes a second, in wall time, in steps of a
// fiftieth of a second or one byte. The rate must be positive.
func Slow(bytesPerSecond int64) FaultFunc {
	step := max(1, bytesPerSecond/50)
	pause := time.Duration(step) * time.Second / time.Duration(bytesPerSecond)
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		next.ServeHTTP(&bodyWriter{ResponseWriter: w, body: func(_ int64, p []byte) {
			for len(p) > 0 {
				select {
				case <-tick.C:
				case <-r.Context().Done():
					panic(http.ErrAbortHandler)
				}
				n := min(step, int64(len(p)))
				send(w, p[:n])
				flush(w)
				p = p[n:]
			}
		}}, r)
	}
}

// SetHeader replaces one header field of the answer; "" removes it.
func SetHeader(key, value string) FaultFunc {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&bodyWriter{
			ResponseWriter: w,
			header: func(h http.Header) {
				if value == "" {
					h.Del(key)
					return
				}
				h.Set(key, value)
			},
			body: func(_ int64, p []byte) { send(w, p) },
		}, r)
	}
}
