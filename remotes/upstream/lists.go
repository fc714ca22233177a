package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
)

// Tags lists tags of a repository as upstream orders them: at most n (0: as
// many as upstream likes), after the tag last ("": from the start). more
// reports that upstream has further ones.
func (c *Client) Tags(ctx context.Context, repository string, n int, last string) (tags []string, more bool, err error) {
	p := purpose{op: "list tags", object: repository, limit: maxList}
	err = c.exchange(ctx, p, func(ctx context.Context, x *exchange) error {
		query := url.Values{}
		if n > 0 {
			query.Set("n", strconv.Itoa(n))
		}
		if last != "" {
			query.Set("last", last)
		}
		resp, err := x.get(ctx, c.path(repository), "tags/list", query)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var list struct {
			Tags []string `json:"tags"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
			return fmt.Errorf("decode: %w", err)
		}
		tags, more = list.Tags, resp.Header.Get("Link") != ""
		return nil
	})
	return tags, more, err
}

// maxChallenges is how many challenges one request answers: for a token, and
// for a fresh one.
const maxChallenges = 2

// get asks for what containerd's client has no call for, with its tokens.
func (x *exchange) get(ctx context.Context, path, what string, query url.Values) (*http.Response, error) {
	host := x.host()
	u := url.URL{Scheme: host.Scheme, Host: host.Host, Path: host.Path + "/" + path + "/" + what, RawQuery: query.Encode()}
	ctx = docker.WithScope(ctx, "repository:"+path+":pull")
	for challenges := 0; ; challenges++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		if err := x.session.Authorize(ctx, req); err != nil {
			return nil, err
		}
		resp, err := x.http.Do(req)
		if err != nil {
			return nil, err
		}
		switch {
		case resp.StatusCode == http.StatusOK:
			return resp, nil
		case resp.StatusCode != http.StatusUnauthorized:
			_ = resp.Body.Close() // it is refused anyhow
			return nil, &statusError{status: resp.StatusCode}
		case challenges >= maxChallenges:
			return nil, refusal(resp)
		}
		if err := x.session.AddResponses(ctx, []*http.Response{resp}); errdefs.IsNotImplemented(err) {
			return nil, refusal(resp)
		} else if err != nil {
			return nil, err
		}
	}
}
