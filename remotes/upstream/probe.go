package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
)

// HasManifest asks by one HEAD whether a manifest is there, by tag or digest,
// for who this client asks as. What is answered besides is not looked at.
// Where HEAD is not allowed it asks by GET, and reads nothing.
func (c *Client) HasManifest(ctx context.Context, repository, object string) error {
	p := purpose{op: "look for", object: repository + " " + object, repository: repository, accept: manifestTypes()}
	return c.exchange(ctx, p, func(ctx context.Context, x *exchange) error {
		a := ask{method: http.MethodHead, path: c.path(repository), what: "manifests/" + object}
		resp, err := x.do(ctx, a)
		if se, ok := errors.AsType[*statusError](err); ok && se.status == http.StatusMethodNotAllowed {
			a.method = http.MethodGet
			resp, err = x.do(ctx, a)
		}
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
}

// Sample fetches n bytes of a blob from offset on. The bytes are not checked,
// but for their number. An upstream that ignores Range has the bytes before
// offset read and dropped, for as long as ctx lets it.
func (c *Client) Sample(ctx context.Context, repository string, dgst digest.Digest, offset int64, n int) ([]byte, error) {
	p := purpose{op: "sample blob", object: repository + "@" + dgst.String(), repository: repository, stream: true}
	if err := c.checkDigest(p, dgst); err != nil {
		return nil, err
	}
	var sample []byte
	err := c.exchange(ctx, p, func(ctx context.Context, x *exchange) error {
		resp, err := x.do(ctx, ask{
			method: http.MethodGet, path: c.path(repository), what: "blobs/" + dgst.String(),
			header: http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", offset, offset+int64(n)-1)}},
		})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusPartialContent {
			if _, err := io.CopyN(io.Discard, resp.Body, offset); err != nil {
				return readError(err)
			}
		}
		buf := make([]byte, n)
		if _, err := io.ReadFull(resp.Body, buf); err != nil {
			return readError(err)
		}
		sample = buf
		return nil
	})
	return sample, err
}

// readError is a body that ended too early; io.EOF alone would say nothing.
func readError(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read answer: %w", err)
}
