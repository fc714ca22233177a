package remotestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Push uploads img to any distribution registry at baseURL, as in
// "http://127.0.0.1:5000", over plain HTTP calls without credentials: blobs in
// one piece each unless they are there already, then manifests by digest, the
// root by tag ("" pushes it by digest). An answer that is not the expected one
// is errdefs.ErrUnknown with the status and the start of the body.
func Push(ctx context.Context, baseURL, repo, tag string, img Image) error {
	tr := &http.Transport{} // its own, so that no connection outlives the call
	defer tr.CloseIdleConnections()
	p := &pusher{client: &http.Client{Transport: tr}, base: baseURL + "/v2/" + repo}
	for _, b := range img.Blobs {
		if err := p.blob(ctx, b); err != nil {
			return fmt.Errorf("%s/%s: push blob %s: %w", baseURL, repo, b.Descriptor.Digest, err)
		}
	}
	for _, m := range img.Manifests {
		ref := m.Descriptor.Digest.String()
		if tag != "" && m.Descriptor.Digest == img.Root.Digest {
			ref = tag
		}
		if err := p.put(ctx, p.base+"/manifests/"+ref, m.Descriptor.MediaType, m.Data); err != nil {
			return fmt.Errorf("%s/%s: push manifest %s: %w", baseURL, repo, ref, err)
		}
	}
	return nil
}

// pusher pushes to one repository.
type pusher struct {
	client *http.Client
	base   string // ".../v2/<name>"
}

func (p *pusher) blob(ctx context.Context, b Blob) error {
	head, err := p.call(ctx, http.MethodHead, p.base+"/blobs/"+b.Descriptor.Digest.String(), "", nil,
		http.StatusOK, http.StatusNotFound)
	if err != nil || head.status == http.StatusOK {
		return err
	}
	begun, err := p.call(ctx, http.MethodPost, p.base+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	if begun.location == nil {
		return fmt.Errorf("begin upload: no location: %w", errdefs.ErrUnknown)
	}
	return p.put(ctx, withDigest(begun.location, b.Descriptor.Digest), "application/octet-stream", b.Data)
}

// put sends data to where it stays: the location of an upload, or a manifest.
func (p *pusher) put(ctx context.Context, to, mediaType string, data []byte) error {
	_, err := p.call(ctx, http.MethodPut, to, mediaType, data, http.StatusCreated)
	return err
}

// reply is what an upload needs of a response.
type reply struct {
	status   int
	location *url.URL // absolute; nil without Location
}

// call does one request, and makes an error of any status that is not wanted.
func (p *pusher) call(ctx context.Context, method, to, mediaType string, data []byte, want ...int) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(data))
	if err != nil {
		return reply{}, err
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if !slices.Contains(want, resp.StatusCode) {
		return reply{}, fmt.Errorf("%s: got %s %q, want %d: %w", method, resp.Status, body, want, errdefs.ErrUnknown)
	}
	if err != nil {
		return reply{}, fmt.Errorf("%s: read answer: %w", method, err)
	}
	location, err := resp.Location() // resolves one that is relative
	if err != nil && !errors.Is(err, http.ErrNoLocation) {
		return reply{}, fmt.Errorf("%s: location: %w", method, err)
	}
	return reply{status: resp.StatusCode, location: location}, nil
}

// withDigest adds the digest that ends an upload, beside the registry's own
// parameters.
func withDigest(location *url.URL, dgst digest.Digest) string {
	u := *location
	q := u.Query()
	q.Set("digest", dgst.String())
	u.RawQuery = q.Encode()
	return u.String()
}
