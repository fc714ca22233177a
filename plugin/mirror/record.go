package mirror

import (
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/larder-project/larder/remotes"
)

// recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	wroteHeader bool
	status      int
	bytes       int64
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
	rec.bytes += int64(n)
	return n, err
}

// ReadFrom keeps the way open for the server's own copying, which reuses its
// buffers.
func (rec *recorder) ReadFrom(src io.Reader) (int64, error) {
	if !rec.wroteHeader {
		rec.WriteHeader(http.StatusOK)
	}
	n, err := io.Copy(rec.ResponseWriter, src)
	rec.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController find the server's writer.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

// log writes the request's one line. A client that left early is not an
// error of ours; what larder could not do is.
func (s *Server) log(r *http.Request, req request, rec *recorder, err error, took time.Duration) {
	level := slog.LevelInfo
	if err != nil && r.Context().Err() == nil && rec.status >= 500 {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method), slog.String("kind", string(req.kind)),
		slog.String("ns", req.ns), slog.String("repository", req.name), slog.String("object", req.object),
		slog.Int("status", rec.status), slog.String("outcome", rec.Header().Get(CacheHeader)),
		slog.Int64("bytes", rec.bytes), slog.Duration("dur", took),
	}
	if rng := r.Header.Get("Range"); rng != "" {
		attrs = append(attrs, slog.String("range", rng))
	}
	if err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	s.options.Logger.LogAttrs(r.Context(), level, "request", attrs...)
}

var _ Registry = (*remotes.Registry)(nil)
