package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/upstream/ranged"
)

// span is a part of a blob, as an exchange asks for it. Where it begins the
// request says; a body that is cut is continued within it. Nil is no part.
type span struct {
	last  int64
	of    *inParts // nil: it is the first part, of which nothing is known yet
	ahead bool     // it is not needed yet
}

func (s *span) isAhead() bool  { return s != nil && s.ahead }
func (s *span) hasPlace() bool { return s != nil && s.of != nil }

// bound has a request for all from an offset on end where the part does.
func (s *span) bound(req *http.Request) *http.Request {
	first := int64(0)
	if text, ok := strings.CutPrefix(req.Header.Get("Range"), "bytes="); ok {
		text, _, _ = strings.Cut(text, "-")
		first, _ = parseSize(text) // containerd's client wrote it
	}
	req = req.Clone(req.Context())
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", first, s.last))
	return req
}

// check compares an answer with what is known of the blob. The guard has seen to
// it that it begins where it should.
func (s *span) check(resp *http.Response) error {
	switch {
	case s == nil:
		return nil
	case resp.StatusCode != http.StatusPartialContent:
		if s.ahead {
			return errIgnored
		}
		return nil
	}
	got := partOf(resp)
	switch {
	case got.last > s.last:
		return fmt.Errorf("asked for bytes up to %d, got %d: %w", s.last, got.last, errdefs.ErrDataLoss)
	case resp.ContentLength >= 0 && resp.ContentLength != got.last+1-got.first:
		return fmt.Errorf("bytes %d to %d have the length %d: %w", got.first, got.last, resp.ContentLength, errdefs.ErrDataLoss)
	case s.of == nil:
		return nil
	case got.total >= 0 && got.total != s.of.size:
		return fmt.Errorf("blob has %d bytes now, %d before: %w", got.total, s.of.size, errdefs.ErrDataLoss)
	case s.ahead && got.last != s.last && got.last != s.of.size-1:
		return fmt.Errorf("asked for bytes up to %d, got up to %d: %w", s.last, got.last, errdefs.ErrDataLoss)
	case s.ahead && s.of.isOther(resp):
		// What is behind one link need not have another's tag.
		return fmt.Errorf("blob has another ETag now: %w", errdefs.ErrDataLoss)
	}
	return nil
}

// errIgnored says that the whole came in place of a part that is not needed yet.
var errIgnored = fmt.Errorf("asked for a part, got all: %w: %w", ranged.ErrIgnored, errdefs.ErrDataLoss)

// partOf is the Content-Range of a 206; zero for all else.
func partOf(resp *http.Response) contentRange {
	if resp.StatusCode != http.StatusPartialContent {
		return contentRange{}
	}
	r, _ := parseContentRange(resp.Header.Get("Content-Range")) // the guard has checked it
	return r
}

// direct is where an upstream redirected to for a blob: its parts are asked for
// there, as long as the link is good, and the upstream is spared. It is safe for
// concurrent use.
type direct struct {
	mu sync.Mutex
	at *url.URL // nil: the upstream is to be asked
}

func (d *direct) get() *url.URL {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at
}

// set remembers a link if none is known.
func (d *direct) set(at *url.URL) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at == nil {
		d.at = at
	}
}

// drop forgets a link, if it is still the one.
func (d *direct) drop(at *url.URL) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at == at {
		d.at = nil
	}
}

// sendSpan sends a request for a part by the link that is known for its blob. It
// asks the upstream, which may answer by another one, if there is none, or if it
// is refused.
func (x *exchange) sendSpan(req *http.Request) (*http.Response, error) {
	if x.span == nil || x.span.of == nil || req.Response != nil || !x.client.endpoint.isOriginOf(req.URL) {
		return x.send(req)
	}
	at := x.span.of.link.get()
	if at == nil {
		return x.send(req)
	}
	// Nothing of what is for the upstream goes there.
	there := (&http.Request{Method: req.Method, URL: at, Host: at.Host, Header: http.Header{"Range": req.Header["Range"]}}).WithContext(req.Context())
	resp, err := x.sendElsewhere(there)
	if se, ok := errors.AsType[*statusError](err); ok && x.isLinkRefused(se) {
		x.span.of.link.drop(at)
		return x.send(req)
	}
	return resp, err
}

// guard is that of the client, or the one whose connections are its own.
func (x *exchange) guard() *guard {
	if x.span.isAhead() && x.span.of.apart {
		return x.client.apart
	}
	return x.client.guard
}
