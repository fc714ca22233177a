package mirror

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/larder-project/larder/remotes"
)

// maxPrompt bounds the manifests that are answered without net/http: an image's has 1
// to 10 KiB, and fits into what a socket takes at once.
const maxPrompt = 16 << 10

// answerPlain appends the answer to a plain request for a manifest that is at hand. It
// is the answer that ServeHTTP gives, in some less steps (TestAnswerPlain). If it is
// not ok, nothing has happened, and ServeHTTP is to be asked: for what is not at hand,
// and for what was not asked for lately.
func (s *Server) answerPlain(ctx context.Context, dst []byte, p plain) (_ []byte, ok bool) {
	start := time.Now()
	t, ok := s.targets.get(p.path, p.query)
	if !ok || t.kind != kindManifest || !s.isSecret(p.secret) || s.registry.IsPrivate(t.repo) || s.options.Seeder != nil && isContainerd(p.agent) {
		return nil, false
	}
	m, ok := s.registry.Ready(ctx, t.ref, !p.head)
	if !ok || m.Descriptor.Size > maxPrompt || !isAll(m.Descriptor.MediaType, inValue) {
		return nil, false
	}
	e := entry{method: http.MethodHead, request: t.request, status: http.StatusOK, outcome: string(m.Outcome)}
	dst = appendHeader(dst, t, m, start)
	if !p.head {
		dst = append(dst, m.Data...)
		e.method, e.bytes = http.MethodGet, int64(len(m.Data))
	}
	s.expect(e.method, t.repo, m)
	e.took = time.Since(start)
	s.log(ctx, slog.LevelInfo, e)
	return dst, true
}

// appendHeader appends the header of an answer that has a manifest.
func appendHeader(dst []byte, t *target, m remotes.Manifest, now time.Time) []byte {
	add := func(key, value string) {
		dst = append(append(append(append(dst, key...), ": "...), value...), "\r\n"...)
	}
	dst = append(dst, "HTTP/1.1 200 OK\r\n"...)
	add("Content-Type", m.Descriptor.MediaType)
	dst = strconv.AppendInt(append(dst, "Content-Length: "...), m.Descriptor.Size, 10)
	dst = now.UTC().AppendFormat(append(dst, "\r\nDate: "...), http.TimeFormat)
	dst = append(dst, "\r\n"...)
	add("Docker-Content-Digest", m.Descriptor.Digest.String())
	add("Docker-Distribution-Api-Version", apiVersion)
	dst = append(append(append(dst, `Etag: "`...), m.Descriptor.Digest...), "\"\r\n"...)
	if t.ns != "" {
		add("Oci-Namespace", t.repo.Host)
	}
	add("X-Content-Type-Options", "nosniff")
	add(CacheHeader, string(m.Outcome))
	return append(dst, "\r\n"...)
}

func isContainerd(agent string) bool { return strings.HasPrefix(agent, "containerd/") }
