package upstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifestSize bounds manifests and indexes: 4 MiB, the least that the
// distribution specification asks registries to take, and ECR's limit.
const MaxManifestSize = 4 << 20

// maxAnswer bounds every other answer that is not a blob: token, tag list.
const maxAnswer = 1 << 20

// maxRedirects is enough for a registry, its storage and a CDN.
const maxRedirects = 5

// parseURL is url.Parse for text that may hold secrets: its error does not
// repeat the text.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("not a URL: %w", errdefs.ErrInvalidArgument)
	}
	return u, nil
}

// guard is the http.RoundTripper through which everything goes. It sets what
// requests carry, refuses plain http to hosts that were not named for it, and
// turns answers that are no success into errors.
type guard struct {
	base      http.RoundTripper
	plain     map[string]bool // host:port that may be spoken to without TLS
	userAgent string
}

// manifestTypes is what larder stores, and so asks for, whatever the client
// said: a registry must not convert what it has (ECR would).
var manifestTypes = strings.Join([]string{
	ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
	images.MediaTypeDockerSchema2ManifestList, images.MediaTypeDockerSchema2Manifest, "*/*",
}, ", ")

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !g.plain[hostPort(req.URL.Scheme, strings.ToLower(req.URL.Host))] {
		return nil, &addressError{address: req.URL.Scheme + "://" + req.URL.Host}
	}
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", g.userAgent)
	// Blobs and manifests are hashed as they are: no coding may come between.
	req.Header.Set("Accept-Encoding", "identity")
	if strings.Contains(req.URL.Path, "/manifests/") {
		req.Header.Set("Accept", manifestTypes)
	}
	resp, err := g.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	return checkResponse(req, resp)
}

func checkResponse(req *http.Request, resp *http.Response) (*http.Response, error) {
	code := resp.StatusCode
	switch {
	case code == http.StatusUnauthorized,
		code == http.StatusMethodNotAllowed && req.Method == http.MethodHead:
		// containerd's client answers these: a challenge, and a registry
		// without HEAD.
		resp.Body = boundBody(resp.Body, maxAnswer)
		return resp, nil
	case code >= 300 && code < 400:
		return resp, nil // http.Client follows, within checkRedirect
	case code < 200 || code >= 300:
		return nil, refuse(resp)
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return nil, errors.Join(
			fmt.Errorf("content encoding %q was not asked for: %w", oneLine(enc), errdefs.ErrDataLoss), resp.Body.Close())
	}
	if err := checkRange(req, resp); err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	switch {
	case strings.Contains(req.URL.Path, "/blobs/"), isRedirected(req):
		// Bounded by the fill.
	case strings.Contains(req.URL.Path, "/manifests/"), strings.Contains(req.URL.Path, "/referrers/"):
		resp.Body = boundBody(resp.Body, MaxManifestSize)
	default:
		resp.Body = boundBody(resp.Body, maxAnswer)
	}
	return resp, nil
}

// checkRange refuses a part that does not begin where it was asked to:
// containerd's client believes any 206.
func checkRange(req *http.Request, resp *http.Response) error {
	if resp.StatusCode != http.StatusPartialContent {
		return nil
	}
	asked, _, _ := strings.Cut(strings.TrimPrefix(req.Header.Get("Range"), "bytes="), "-")
	got := resp.Header.Get("Content-Range")
	if asked == "" || !strings.HasPrefix(got, "bytes "+asked+"-") {
		return fmt.Errorf("asked for bytes from %q, got range %q: %w", asked, oneLine(got), errdefs.ErrDataLoss)
	}
	return nil
}

// isRedirected reports whether a request follows a redirect: then its path
// says nothing, and its reader bounds the body.
func isRedirected(req *http.Request) bool { return req.Response != nil }

func refuse(resp *http.Response) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<10))
	if err != nil {
		body = nil // the status alone says enough
	}
	return &statusError{
		status:     resp.StatusCode,
		retryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()),
		message:    ociMessage(body),
	}
}

// ociMessage takes code and message out of an OCI error body.
func ociMessage(body []byte) string {
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &doc) != nil || len(doc.Errors) == 0 {
		return ""
	}
	return oneLine(strings.TrimPrefix(doc.Errors[0].Code+": "+doc.Errors[0].Message, ": "))
}

// parseRetryAfter reads seconds or a date (RFC 9110, 10.2.3). What is absurd
// is bounded by who uses it.
func parseRetryAfter(text string, now time.Time) time.Duration {
	if secs, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(secs) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}

// boundBody fails a body that is longer than limit; it does not cut it.
func boundBody(body io.ReadCloser, limit int64) io.ReadCloser {
	return &boundedBody{ReadCloser: body, left: limit, limit: limit}
}

type boundedBody struct {
	io.ReadCloser
	left, limit int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("answer is longer than %d bytes: %w", b.limit, errdefs.ErrDataLoss)
	}
	return n, err
}

// checkRedirect is http.Client.CheckRedirect. The hop's address and scheme
// are the guard's and the dialer's business; this is about credentials.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects: %w", maxRedirects, errdefs.ErrUnavailable)
	}
	if first := via[0].URL; req.URL.Scheme != first.Scheme || !strings.EqualFold(req.URL.Host, first.Host) {
		for _, h := range []string{"Authorization", "Proxy-Authorization", "Cookie", "Cookie2", "Www-Authenticate", "Referer"} {
			req.Header.Del(h)
		}
	}
	return nil
}

// observer notes the last answer of one exchange: containerd's client hands
// on the body, but not what the headers said of it.
type observer struct {
	base http.RoundTripper

	size        int64 // of the whole object, -1 if not told
	contentType string
}

func (o *observer) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := o.base.RoundTrip(req)
	if err == nil && resp.StatusCode < 300 {
		o.contentType, _, _ = strings.Cut(resp.Header.Get("Content-Type"), ";")
		o.size = wholeSize(resp)
	}
	return resp, err
}

// wholeSize is the size of the whole object behind a response, -1 if it does
// not tell.
func wholeSize(resp *http.Response) int64 {
	if resp.StatusCode != http.StatusPartialContent {
		return resp.ContentLength
	}
	_, total, ok := strings.Cut(resp.Header.Get("Content-Range"), "/")
	if !ok {
		return -1
	}
	size, err := strconv.ParseInt(total, 10, 64)
	if err != nil || size < 0 {
		return -1
	}
	return size
}
