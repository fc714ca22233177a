package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errhttp"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes"
)

// Client is a verb's side of the socket.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient makes a client of the daemon on a unix socket. It does not
// connect yet.
func NewClient(socket string) *Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}
	return &Client{socket: socket, http: &http.Client{Transport: transport}}
}

// Status asks who answers.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodGet, "status", "", nil, &s)
}

// Images lists the stored images.
func (c *Client) Images(ctx context.Context) (images []remotes.Image, err error) {
	return images, c.call(ctx, http.MethodGet, "images", "", nil, &images)
}

// Image describes one stored image.
func (c *Client) Image(ctx context.Context, ref string) (d remotes.ImageDetail, err error) {
	return d, c.call(ctx, http.MethodGet, "image", ref, nil, &d)
}

// Remove removes an image.
func (c *Client) Remove(ctx context.Context, ref string) (r RemoveResult, err error) {
	return r, c.call(ctx, http.MethodDelete, "image", ref, nil, &r)
}

// Refresh checks a tag upstream now.
func (c *Client) Refresh(ctx context.Context, ref string) (r RefreshResult, err error) {
	return r, c.call(ctx, http.MethodPost, "refresh", ref, nil, &r)
}

// Pin keeps images.
func (c *Client) Pin(ctx context.Context, req PinRequest) (s remotes.PinStatus, err error) {
	return s, c.call(ctx, http.MethodPut, "pin", "", req, &s)
}

// Unpin takes a pin away.
func (c *Client) Unpin(ctx context.Context, req PinRequest) (r UnpinResult, err error) {
	return r, c.call(ctx, http.MethodDelete, "pin", "", req, &r)
}

// Pins lists all pins.
func (c *Client) Pins(ctx context.Context) (a PinsAnswer, err error) {
	return a, c.call(ctx, http.MethodGet, "pins", "", nil, &a)
}

// History tells what a tag pointed to.
func (c *Client) History(ctx context.Context, ref string) (h cache.History, err error) {
	return h, c.call(ctx, http.MethodGet, "history", ref, nil, &h)
}

// Lifecycle tells what lifecycle policies would do with a repository, or with
// all if it is empty.
func (c *Client) Lifecycle(ctx context.Context, repo string) (r LifecycleResult, err error) {
	return r, c.call(ctx, http.MethodGet, "lifecycle", repo, nil, &r)
}

// RunLifecycle has them do it.
func (c *Client) RunLifecycle(ctx context.Context, repo string) (r LifecycleResult, err error) {
	return r, c.call(ctx, http.MethodPost, "lifecycle", repo, nil, &r)
}

// Pull brings an image and calls report for each blob event.
func (c *Client) Pull(ctx context.Context, req PullRequest, report func(remotes.BlobProgress)) (PullResult, error) {
	resp, err := c.do(ctx, http.MethodPost, "pull", "", req)
	if err != nil {
		return PullResult{}, err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var ev PullEvent
		if err := dec.Decode(&ev); err != nil {
			if ctx.Err() != nil {
				return PullResult{}, ctx.Err()
			}
			return PullResult{}, fmt.Errorf("the daemon ended in the middle of the pull; what it has fetched is kept: %w", err)
		}
		switch {
		case ev.Result != nil:
			return *ev.Result, nil
		case ev.Error != "":
			return PullResult{}, errors.New(ev.Error)
		case ev.Blob != nil:
			report(*ev.Blob)
		}
	}
}

func (c *Client) call(ctx context.Context, method, what, ref string, body, answer any) error {
	resp, err := c.do(ctx, method, what, ref, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("answer of the daemon: %w", err)
	}
	return nil
}

// do sends a request; an answer that is no success is an error with the
// daemon's words and errdefs' kind.
func (c *Client) do(ctx context.Context, method, what, ref string, body any) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "larder", Path: "/v1/" + what}
	if ref != "" {
		u.RawQuery = url.Values{"ref": {ref}}.Encode()
	}
	var payload io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), payload)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var answer errorAnswer
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxRequest)).Decode(&answer); err != nil || answer.Error == "" {
		answer.Error = "the daemon answered " + resp.Status
	}
	return nil, &daemonError{text: answer.Error, kind: errhttp.ToNative(resp.StatusCode)}
}

// daemonError has the daemon's words and errdefs' kind.
type daemonError struct {
	text string
	kind error
}

func (e *daemonError) Error() string { return e.text }
func (e *daemonError) Unwrap() error { return e.kind }

// explain says what to do when the daemon cannot be reached.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no larder daemon on %s: start it with \"larder serve\", or name its configuration with --config: %w", c.socket, errdefs.ErrUnavailable)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("no access to %s: run as the daemon's user (root on most nodes): %w", c.socket, errdefs.ErrPermissionDenied)
	}
	return fmt.Errorf("talk to the daemon on %s: %w", c.socket, err)
}
