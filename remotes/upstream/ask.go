package upstream

import (
	"context"
	"maps"
	"net/http"
	"net/url"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// ask is a request that containerd's client has no call for.
type ask struct {
	method string
	path   string // of the repository
	what   string // behind it
	query  url.Values
	header http.Header
}

// do sends an ask as containerd's client would. Only 200 and 206 are no errors.
// The session bounds how often a 401 is answered.
func (x *exchange) do(ctx context.Context, a ask) (*http.Response, error) {
	host := x.host()
	u := url.URL{Scheme: host.Scheme, Host: host.Host, Path: host.Path + "/" + a.path + "/" + a.what, RawQuery: a.query.Encode()}
	return x.doURL(docker.WithScope(ctx, "repository:"+a.path+":pull"), a.method, u.String(), a.header)
}

// doURL asks with a token for the scopes of ctx.
func (x *exchange) doURL(ctx context.Context, method, url string, header http.Header) (*http.Response, error) {
	for {
		req, err := http.NewRequestWithContext(ctx, method, url, nil)
		if err != nil {
			return nil, err
		}
		maps.Copy(req.Header, header)
		if err := x.session.Authorize(ctx, req); err != nil {
			return nil, err
		}
		resp, err := x.http.Do(req)
		if err != nil {
			return nil, err
		}
		switch {
		case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusPartialContent:
			return resp, nil
		case resp.StatusCode != http.StatusUnauthorized:
			_ = resp.Body.Close() // it is refused anyhow
			return nil, &statusError{status: resp.StatusCode}
		}
		if err := x.session.AddResponses(ctx, []*http.Response{resp}); err != nil {
			return nil, err
		}
	}
}
