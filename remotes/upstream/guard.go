package upstream

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// maxRedirects is enough for a registry, its storage and a CDN.
const maxRedirects = 5

// guard is the http.RoundTripper through which everything goes. It sets what
// requests carry, refuses what the configuration did not name, and turns
// answers that are no success into errors.
type guard struct {
	base      http.RoundTripper
	named     map[string]bool // host:port that may be at any address
	plain     map[string]bool // host:port that may be spoken to without TLS
	wait      time.Duration   // for headers, and for each part of a small body
	userAgent string
	via       string
}

// RoundTrip implements http.RoundTripper. Its errors are *transportError,
// *statusError, *addressError, or of a kind of errdefs.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.allow(req.URL); err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", g.userAgent)
	req.Header.Set("Via", viaOf(req.Context(), g.via))
	// Blobs and manifests are hashed as they are: no coding may come between.
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := g.base.RoundTrip(req)
	if err != nil {
		return nil, newTransportError(req, err)
	}
	return g.check(req, resp)
}

// allow refuses what can be refused before an address is known. The dialer
// sees the address; but behind a proxy it sees the proxy's.
func (g *guard) allow(u *url.URL) error {
	hp := hostPort(u.Scheme, u.Host)
	if u.Scheme != "https" && !g.plain[hp] {
		return &addressError{address: u.Scheme + "://" + u.Host, plain: true}
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && !g.named[hp] && !isPublic(addr) {
		return &addressError{address: hp}
	}
	return nil
}

func (g *guard) check(req *http.Request, resp *http.Response) (*http.Response, error) {
	code := resp.StatusCode
	switch {
	case code == http.StatusUnauthorized:
		// containerd's client answers the challenge, and closes the body
		// unread, which would cost the connection.
		resp.Body = io.NopCloser(bytes.NewReader(hideShown(req, g.readSmall(resp.Body))))
		return resp, nil
	case code == http.StatusMethodNotAllowed && req.Method == http.MethodHead:
		return resp, nil // containerd's client then asks by GET
	case code >= 300 && code < 400:
		return g.checkLocation(resp)
	case code < 200 || code >= 300:
		return nil, &statusError{
			status:     code,
			retryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()),
			header:     resp.Header,
			message:    ociMessage(hideShown(req, g.readSmall(resp.Body))),
		}
	}
	err := checkEncoding(resp.Header)
	if err == nil {
		err = checkRange(req, resp)
	}
	if err != nil {
		_ = resp.Body.Close() // err is the one to tell
		return nil, err
	}
	return resp, nil
}

// checkLocation refuses a Location that is no URL: net/http would repeat it,
// signature and all, in its error.
func (g *guard) checkLocation(resp *http.Response) (*http.Response, error) {
	if _, err := url.Parse(resp.Header.Get("Location")); err != nil {
		_ = resp.Body.Close() // it is refused anyhow
		return nil, fmt.Errorf("redirect to what is no URL: %w", errdefs.ErrDataLoss)
	}
	return resp, nil
}

func checkEncoding(h http.Header) error {
	if enc := h.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return fmt.Errorf("content encoding %q was not asked for: %w", oneLine(enc), errdefs.ErrDataLoss)
	}
	return nil
}

// maxSmall bounds how much of a body is read for the sake of a message.
const maxSmall = 8 << 10

// readSmall reads the begin of a body that matters little, for a moment, and
// closes it. What cannot be read is left out: the status says enough.
func (g *guard) readSmall(body io.ReadCloser) []byte {
	defer body.Close()
	t := time.AfterFunc(g.wait, func() { body.Close() })
	defer t.Stop()
	data, err := io.ReadAll(io.LimitReader(body, maxSmall))
	if err != nil {
		return nil
	}
	return data
}

// checkRedirect is http.Client.CheckRedirect. The hop's address and scheme
// are the guard's and the dialer's business; this is about credentials.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects: %w", maxRedirects, errdefs.ErrUnavailable)
	}
	// The hop before may have carried a signature in its query.
	req.Header.Del("Referer")
	// net/http would make a credential of it.
	req.URL.User = nil
	if !sameOrigin(req.URL, via[0].URL) {
		for _, h := range []string{"Authorization", "Proxy-Authorization", "Cookie", "Cookie2", "Www-Authenticate"} {
			req.Header.Del(h)
		}
	}
	return nil
}

// boundBody fails a body that is longer than limit, or that stops for longer
// than wait; it does not cut it.
func boundBody(body io.ReadCloser, limit int64, wait time.Duration) io.ReadCloser {
	return &boundedBody{ReadCloser: body, left: limit, limit: limit, wait: wait}
}

type boundedBody struct {
	io.ReadCloser
	left, limit int64
	wait        time.Duration
	stalled     bool
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	t := time.AfterFunc(b.wait, func() { b.ReadCloser.Close() })
	n, err := b.ReadCloser.Read(p)
	if !t.Stop() {
		b.stalled = true
	}
	if b.stalled && err != nil && err != io.EOF {
		return n, &transportError{text: fmt.Sprintf("the answer stopped for %s", b.wait), verdict: silent}
	}
	if b.left -= int64(n); b.left < 0 {
		return 0, tooLong(b.limit)
	}
	return n, err
}

func tooLong(limit int64) error {
	return fmt.Errorf("answer is longer than %d bytes: %w", limit, errdefs.ErrDataLoss)
}
