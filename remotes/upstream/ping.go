package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
)

// maxPing bounds the answer of /v2/, which is empty or nearly so.
const maxPing = 64 << 10

// Ping asks whether the upstream is there, speaks the registry API, and takes
// who asks: GET /v2/ (distribution specification, end-1). A registry that asks
// for a token is asked again with one; one that asks for Basic, with the
// credential for a repository there. The repository need not exist. A token
// service that gives no token without a scope is asked for one to pull from
// the repository.
func (c *Client) Ping(ctx context.Context, repository string) error {
	noToken, err := c.ping(ctx, repository, false)
	if noToken && errdefs.IsPermissionDenied(err) {
		// GitLab gives nobody a token for nothing. What it says then is the
		// better answer, too.
		_, err = c.ping(ctx, repository, true)
	}
	return err
}

// ping asks once, with a token for the repository or for nothing. noToken tells
// that it failed at the token service.
func (c *Client) ping(ctx context.Context, repository string, scoped bool) (noToken bool, err error) {
	p := purpose{op: "ping", object: "/v2/", repository: repository, limit: maxPing}
	err = c.exchange(ctx, p, func(ctx context.Context, x *exchange) error {
		if scoped {
			ctx = docker.WithScope(ctx, "repository:"+c.path(repository)+":pull")
		}
		host := x.host()
		u := url.URL{Scheme: host.Scheme, Host: host.Host, Path: host.Path + "/"}
		resp, err := x.doURL(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			_, noToken = errors.AsType[*tokenError](err)
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		return checkAPI(resp)
	})
	return noToken, err
}

// checkAPI refuses a web page: what is no registry but answers 200 to
// everything, for instance the login page of a network.
func checkAPI(resp *http.Response) error {
	if t := contentType(resp.Header); t == "text/html" || t == "application/xhtml+xml" {
		return fmt.Errorf("answered with a web page, not as a registry: %w", errdefs.ErrDataLoss)
	}
	return nil
}
