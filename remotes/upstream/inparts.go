package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/larder-project/larder/remotes/upstream/ranged"
	"github.com/opencontainers/go-digest"
)

// maxPatience is how long a body waits for an upstream that answered a part with
// 429 or 503 and asked to be left alone. Without it the body fails at once, and
// with it a download that one connection would have finished.
const maxPatience = time.Minute

// BlobInParts is Blob for a blob that is expected to have hint bytes. What is
// large is asked for in parts, by more than one connection where that is faster;
// its bytes come in order all the same.
func (c *Client) BlobInParts(ctx context.Context, repository string, dgst digest.Digest, offset, hint int64) (body io.ReadCloser, size int64, err error) {
	if c.site.parallel < 2 || hint-offset < ranged.Least {
		return c.Blob(ctx, repository, dgst, offset)
	}
	p := blobPurpose(repository, dgst)
	if err := c.checkDigest(p, dgst); err != nil {
		return nil, -1, err
	}
	p.span = &span{last: offset + ranged.First - 1}
	began := time.Now()
	got, err := c.openBlob(ctx, p, dgst, offset)
	switch {
	case offset == 0 && isStatus(err, http.StatusRequestedRangeNotSatisfiable):
		return c.Blob(ctx, repository, dgst, offset) // it is empty, or upstream is confused
	case err != nil:
		return nil, -1, err
	case got.part == contentRange{}:
		return got.body, got.size, nil // upstream sends all at once
	case got.size < 0:
		_ = got.body.Close() // how many parts there are it does not tell
		return c.Blob(ctx, repository, dgst, offset)
	}
	return c.goOn(ctx, got, dgst, p, time.Since(began)), got.size, nil
}

func isStatus(err error, status int) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == status
}

// goOn makes a whole of a first part.
func (c *Client) goOn(ctx context.Context, first reply, dgst digest.Digest, p purpose, took time.Duration) io.ReadCloser {
	s := &inParts{client: c, purpose: p, digest: dgst, size: first.size, etag: first.etag, host: first.at.Host, apart: first.proto > 1}
	if !c.endpoint.isOriginOf(first.at) {
		s.link.set(first.at)
	}
	s.governor = &c.site.governor
	s.governor.Opened(took, true)
	// The place of the first part is the body's, and is kept as long as it.
	release := first.body.release
	first.body.release = func() {}
	body := ranged.NewBody(ctx, ranged.Options{
		Source: s, Governor: s.governor, Memory: c.memory, Connections: c.site.parallel, Size: first.size,
	}, first.body, first.part.first, first.part.last)
	return &partsBody{Body: body, wrap: s.wrap, release: release}
}

// inParts is the ranged.Source of one blob.
type inParts struct {
	client   *Client
	purpose  purpose
	digest   digest.Digest
	governor *ranged.Governor
	size     int64
	etag     string // of the first part, and who sent it
	host     string
	apart    bool // parts ahead need connections of their own: see transports.apart
	link     direct
}

// Open implements ranged.Source.
func (s *inParts) Open(ctx context.Context, first, last int64) (io.ReadCloser, error) {
	if err := s.rest(ctx); err != nil {
		return nil, err
	}
	return s.open(ctx, first, last, false)
}

// Ahead implements ranged.Source.
func (s *inParts) Ahead(ctx context.Context, first, last int64) (io.ReadCloser, error) {
	body, err := s.open(ctx, first, last, true)
	if e, ok := errors.AsType[*Error](err); ok && e.ignored {
		err = fmt.Errorf("%w: %w", ranged.ErrIgnored, err)
	}
	return body, err
}

func (s *inParts) open(ctx context.Context, first, last int64, ahead bool) (io.ReadCloser, error) {
	p := s.purpose
	p.span = &span{last: last, of: s, ahead: ahead}
	got, err := s.client.openBlob(ctx, p, s.digest, first)
	if err != nil {
		return nil, err
	}
	if at := got.at; !s.client.endpoint.isOriginOf(at) {
		s.link.set(at)
	}
	return got.body, nil
}

// rest waits as long as the upstream asked to be left alone, if that is not long.
func (s *inParts) rest(ctx context.Context) error {
	limit := s.client.site.resting(s.client.account(), time.Now())
	if limit == nil || limit.left > maxPatience {
		return nil // the exchange refuses it
	}
	defer s.client.site.places.waiting(ctx)()
	t := time.NewTimer(limit.left)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// More implements ranged.Source. A connection more is worth nothing to who waits
// for a place: some stay free for blobs that come.
func (s *inParts) More() (release func(), ok bool) {
	if !s.governor.More() {
		return nil, false
	}
	place, ok := s.client.site.places.spare()
	if !ok {
		s.governor.Leave()
		return nil, false
	}
	return func() {
		s.governor.Leave()
		place()
	}, true
}

// Overlap implements ranged.Source.
func (s *inParts) Overlap() (release func(), ok bool) { return s.client.site.places.spare() }

// isOther reports whether an answer is about another object than the first one.
func (s *inParts) isOther(resp *http.Response) bool {
	etag := resp.Header.Get("Etag")
	strong := func(tag string) bool { return strings.HasPrefix(tag, `"`) }
	return strong(etag) && strong(s.etag) && etag != s.etag && resp.Request.URL.Host == s.host
}

// wrap makes an *Error of whatever ends the body.
func (s *inParts) wrap(err error) error {
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	return s.client.failure(s.purpose, err)
}

// partsBody is a body in parts, with its place among those of its upstream.
type partsBody struct {
	*ranged.Body
	wrap    func(error) error
	release func()
}

// Read implements io.Reader.
func (b *partsBody) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.wrap(err)
	}
	return n, err
}

// Close ends what runs, and gives the place back. It may be called twice.
func (b *partsBody) Close() error {
	defer b.release()
	return b.Body.Close()
}
