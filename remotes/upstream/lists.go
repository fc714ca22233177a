package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// Tags lists tags of a repository as upstream orders them: at most n (0: as
// many as upstream likes), after the tag last ("": from the start). more
// reports that upstream has further ones.
func (c *Client) Tags(ctx context.Context, repository string, n int, last string) (tags []string, more bool, err error) {
	p := purpose{op: "list tags", object: repository, repository: repository, limit: maxList}
	err = c.exchange(ctx, p, func(ctx context.Context, x *exchange) error {
		query := url.Values{}
		if n > 0 {
			query.Set("n", strconv.Itoa(n))
		}
		if last != "" {
			query.Set("last", last)
		}
		resp, err := x.do(ctx, ask{method: http.MethodGet, path: c.path(repository), what: "tags/list", query: query})
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
