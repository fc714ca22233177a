package upstream

import (
	"errors"
	"net/http"
	"net/url"
)

// sendElsewhere sends a request to where a redirect led, which is shown
// nothing: its 401 is a refusal like any other, and no challenge.
func (x *exchange) sendElsewhere(req *http.Request) (*http.Response, error) {
	resp, err := x.guard().RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		err = refusal(resp)
	}
	if err == nil {
		return resp, nil
	}
	if se, ok := errors.AsType[*statusError](err); ok {
		se.by = req.URL.Host
	}
	return nil, err
}

// isLinkRefused reports whether a blob's link, to which the upstream
// redirected, is not good, or not any more: a CDN says so in any of these ways.
func (x *exchange) isLinkRefused(se *statusError) bool {
	if se == nil || se.by == "" || !x.stream {
		return false
	}
	return isDenial(se.status) || se.status == http.StatusNotFound || se.status == http.StatusGone
}

// relink asks the upstream once more for what it answered with a link that was
// refused, and follows the new one. Only a good answer allows for another time.
func (x *exchange) relink(req *http.Request) (*http.Response, error) {
	x.relinked = true
	first := req
	for first.Response != nil { // set by net/http on what a redirect led to
		first = first.Response.Request
	}
	resp, err := x.http.Do(first.Clone(req.Context()))
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err // who asked first wraps it again
	}
	if err != nil {
		return nil, err // one redirect too many comes with an answer, too
	}
	return resp, nil
}
