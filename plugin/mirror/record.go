package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	head        bool // of a HEAD, no body is sent whatever is written
	wroteHeader bool
	status      int
	bytes       int64 // of the body
	failed      error // of sending the body
	unread      error // of reading it
	buffers     *buffers
}

func (rec *recorder) WriteHeader(status int) {
	if !rec.wroteHeader {
		rec.wroteHeader, rec.status = true, status
	}
	rec.ResponseWriter.WriteHeader(status)
}

func (rec *recorder) Write(p []byte) (int, error) {
	if !rec.wroteHeader {
		rec.WriteHeader(http.StatusOK)
	}
	n, err := rec.ResponseWriter.Write(p)
	rec.count(int64(n), err)
	return n, err
}

// ReadFrom has what is large and stored send itself, and copies all else by way of a
// buffer of the Server's. No file is sent by sendfile(2): on loopback that is slower,
// and more work for the client (docs/serving.md).
// Reading fails as a blob's own Read does, of which the store hears.
func (rec *recorder) ReadFrom(src io.Reader) (n int64, err error) {
	if !rec.wroteHeader {
		rec.WriteHeader(http.StatusOK)
	}
	if to, ok := rec.ResponseWriter.(io.ReaderFrom); ok {
		if body := newSending(src); body != nil {
			return rec.send(to, body)
		}
	}
	buf := rec.buffers.take()
	defer rec.buffers.give(buf)
	for {
		got, readErr := src.Read(*buf)
		if got > 0 {
			sent, err := rec.Write((*buf)[:got])
			n += int64(sent)
			if err != nil {
				return n, err
			}
		}
		if errors.Is(readErr, io.EOF) {
			return n, nil
		}
		if readErr != nil {
			rec.unread = readErr
			return n, readErr
		}
	}
}

// send has a body send itself. That it cannot be read is not the client's fault.
func (rec *recorder) send(to io.ReaderFrom, body *sending) (n int64, err error) {
	n, err = to.ReadFrom(body)
	if body.unread != nil {
		rec.unread, err = body.unread, nil
	}
	rec.count(n, err)
	return n, cmp.Or(body.unread, err)
}

// copyBuffer is how many bytes of a blob are copied at a time.
const copyBuffer = 32 << 10

// buffers are those of bodies that are being sent.
type buffers struct{ pool sync.Pool }

func (b *buffers) take() *[]byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return buf
	}
	buf := make([]byte, copyBuffer)
	return &buf
}

func (b *buffers) give(buf *[]byte) { b.pool.Put(buf) }

func (rec *recorder) count(n int64, err error) {
	if !rec.head {
		rec.bytes += n
	}
	if rec.failed == nil {
		rec.failed = err
	}
}

// isClientGone reports whether the client closed the connection, or read nothing
// for Bounds.Stall. The server ends the request's context for that, but not
// always before the handler sees the failed write.
func (rec *recorder) isClientGone(r *http.Request) bool {
	return r.Context().Err() != nil || errors.Is(rec.failed, syscall.EPIPE) || errors.Is(rec.failed, syscall.ECONNRESET) ||
		errors.Is(rec.failed, syscall.ETIMEDOUT)
}

// checkWhole reports a body that is shorter than it was said to be: its file
// could not be read, or the client left.
func (rec *recorder) checkWhole() error {
	want, err := strconv.ParseInt(rec.Header().Get("Content-Length"), 10, 64)
	if err != nil || rec.head || !rec.wroteHeader || rec.status == http.StatusNotModified || rec.bytes >= want {
		return nil //nolint:nilerr // no length was promised
	}
	return fmt.Errorf("body ended at %d of %d bytes: %w", rec.bytes, want, cmp.Or(rec.unread, rec.failed, io.ErrUnexpectedEOF))
}

// Unwrap lets http.ResponseController find the server's writer.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

// maxLogged bounds what a client's text takes of a log line.
const maxLogged = 300

// logged makes a client's text fit for the log. A host with "user:password@"
// before it is no registry host; what it is, is nobody's business.
func logged(key, text string) slog.Attr {
	if i := strings.LastIndexByte(text, '@'); i >= 0 {
		text = "…" + text[i:]
	}
	if len(text) > maxLogged {
		text = strings.ToValidUTF8(text[:maxLogged], "") + "…"
	}
	return slog.String(key, text)
}

// entry is what the log has of a request.
type entry struct {
	method string
	request
	status  int
	outcome string
	bytes   int64 // of the body, as far as it was sent
	ranges  string
	err     error
	took    time.Duration
}

// entryOf is the entry of a request that net/http has read. A client that left early
// is not an error of ours; what larder could not do is.
func entryOf(r *http.Request, req request, rec *recorder, err error, took time.Duration) (slog.Level, entry) {
	level := slog.LevelInfo
	if err != nil && !rec.isClientGone(r) && (rec.status >= 500 || rec.status < 400) {
		level = slog.LevelWarn
	}
	return level, entry{
		method: r.Method, request: req, status: rec.status, outcome: rec.Header().Get(CacheHeader), bytes: rec.bytes,
		ranges: r.Header.Get("Range"), err: err, took: took,
	}
}

// log writes the request's one line.
func (s *Server) log(ctx context.Context, level slog.Level, e entry) {
	if !s.options.Logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		logged("method", e.method), slog.String("kind", string(e.kind)),
		logged("ns", e.ns), logged("repository", e.name), logged("object", e.object),
		slog.Int("status", e.status), slog.String("outcome", e.outcome),
		slog.Int64("bytes", e.bytes), slog.Duration("dur", e.took),
	}
	if e.ranges != "" {
		attrs = append(attrs, logged("range", e.ranges))
	}
	if e.err != nil {
		attrs = append(attrs, slog.Any("err", e.err))
	}
	s.options.Logger.LogAttrs(ctx, level, "request", attrs...)
}
