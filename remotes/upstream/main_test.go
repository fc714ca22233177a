package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/larder-project/larder/remotes/remotestest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds what must happen by itself, so that a fault fails a test and
// does not hang it.
func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// endpoint parses what must be one.
func endpoint(t testing.TB, s string) Endpoint {
	t.Helper()
	ep, err := ParseEndpoint(s)
	if err != nil {
		t.Fatal(err)
	}
	return ep
}

// newPool makes a Pool that is closed with the test.
func newPool(t testing.TB, o Options) *Pool {
	t.Helper()
	p, err := NewPool(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// named is a Pool that may speak to these addresses.
func named(t testing.TB, urls ...string) *Pool {
	t.Helper()
	return newPool(t, Options{Named: endpoints(t, urls...)})
}

func endpoints(t testing.TB, urls ...string) []Endpoint {
	t.Helper()
	var eps []Endpoint
	for _, u := range urls {
		eps = append(eps, endpoint(t, u))
	}
	return eps
}

// clientOf is a client of a registry, which it may speak to.
func clientOf(t testing.TB, reg *remotestest.Registry) *Client {
	t.Helper()
	return named(t, reg.URL()).Client(endpoint(t, reg.URL()))
}

// impatient is clientOf with timeouts that a test can wait for.
func impatient(t testing.TB, url string) *Client {
	t.Helper()
	p := newPool(t, Options{
		Named: endpoints(t, url), DialTimeout: 100 * time.Millisecond,
		HeaderTimeout: 100 * time.Millisecond, Pause: time.Hour,
	})
	return p.Client(endpoint(t, url))
}

// serve answers on loopback and returns scheme, host and port.
func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// failure takes an *Error of a kind, whose text is fit for a log line.
func failure(t *testing.T, err, kind error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("error is %v (%T), want an *Error of kind %v", err, err, kind)
	}
	if !errors.Is(err, kind) || !errors.Is(e.kind, kind) {
		t.Errorf("error is %v of kind %v, want %v", err, e.kind, kind)
	}
	if text := err.Error(); strings.ContainsAny(text, "\n\r\t\x1b") || len(text) > 2*maxMessage+300 {
		t.Errorf("error is %d bytes %q, want a short line", len(text), text)
	}
	if strings.Contains(err.Error(), "failed to do request") {
		t.Errorf("error is %v, want it without net/http's and containerd's words", err)
	}
	return e
}

// readBlob reads a blob to its end.
func readBlob(t *testing.T, c *Client, repo string, desc remotestest.Blob, offset int64) ([]byte, int64, error) {
	t.Helper()
	body, size, err := c.Blob(soon(t), repo, desc.Descriptor.Digest, offset)
	if err != nil {
		return nil, size, err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	return data, size, err
}

// image is small, with one layer.
func image(seed uint64) remotestest.Image {
	return remotestest.Build(remotestest.ImageSpec{Seed: seed, Layers: []int64{300_000}, Platforms: []string{"linux/amd64"}})
}

// layer is the largest blob of an image.
func layer(img remotestest.Image) remotestest.Blob {
	var most remotestest.Blob
	for _, b := range img.Blobs {
		if len(b.Data) > len(most.Data) {
			most = b
		}
	}
	return most
}

// withImage puts an image into a registry at team/app:v1.
func withImage(t *testing.T, opts ...remotestest.Option) (*remotestest.Registry, remotestest.Image) {
	t.Helper()
	reg := remotestest.New(t, opts...)
	img := image(1)
	reg.PutImage("team/app", "v1", img)
	return reg, img
}

// operations are all the ways to ask a client.
func operations(t *testing.T, img remotestest.Image) map[string]func(*Client) error {
	t.Helper()
	ctx := soon(t)
	return map[string]func(*Client) error{
		"resolve":  func(c *Client) error { _, err := c.Resolve(ctx, "team/app", "v1"); return err },
		"by tag":   func(c *Client) error { _, _, _, err := c.ManifestByTag(ctx, "team/app", "v1"); return err },
		"manifest": func(c *Client) error { _, _, err := c.Manifest(ctx, "team/app", img.Root.Digest); return err },
		"blob": func(c *Client) error {
			body, _, err := c.Blob(ctx, "team/app", layer(img).Descriptor.Digest, 0)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, body)
			return errors.Join(err, body.Close())
		},
		"tags":      func(c *Client) error { _, _, err := c.Tags(ctx, "team/app", 0, ""); return err },
		"referrers": func(c *Client) error { _, err := c.Referrers(ctx, "team/app", img.Root.Digest, ""); return err },
	}
}

// failed is failure for those who do not look closer.
func failed(t *testing.T, err, kind error) {
	t.Helper()
	_ = failure(t, err, kind)
}
