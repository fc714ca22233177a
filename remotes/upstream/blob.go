package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"net/url"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobBuffer is for the first bytes of a body, which are waited for. Who reads a blob
// reads more at once, and that goes past the buffer.
const blobBuffer = 4 << 10

// Blob opens a blob at an offset. size is the whole blob's in bytes, -1 if
// upstream did not tell. The bytes are not checked: the fill does that. A
// body that is cut off is asked for again from there, a few times. The body
// lives no longer than ctx; its errors are of type *Error.
func (c *Client) Blob(ctx context.Context, repository string, dgst digest.Digest, offset int64) (body io.ReadCloser, size int64, err error) {
	p := blobPurpose(repository, dgst)
	if err := c.checkDigest(p, dgst); err != nil {
		return nil, -1, err
	}
	got, err := c.openBlob(ctx, p, dgst, offset)
	if err != nil {
		return nil, -1, err
	}
	return got.body, got.size, nil
}

func blobPurpose(repository string, dgst digest.Digest) purpose {
	return purpose{op: "fetch blob", object: repository + "@" + dgst.String(), repository: repository, stream: true}
}

// reply is an open body, and what else the upstream said.
type reply struct {
	body  *blobBody
	size  int64 // of the whole blob, -1 if upstream did not tell
	part  contentRange
	at    *url.URL
	proto int
	etag  string
}

// openBlob opens a blob, or a part of one.
func (c *Client) openBlob(ctx context.Context, p purpose, dgst digest.Digest, offset int64) (got reply, err error) {
	err = c.exchange(ctx, p, func(ctx context.Context, x *exchange) error {
		// The size is not known, or not to be relied on: none is less than
		// this one. The exchange learns what upstream says it is.
		desc := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: dgst, Size: math.MaxInt64}
		raw, err := x.fetch(ctx, c.name(p.repository), desc)
		if err != nil {
			return err
		}
		if _, err := raw.(io.Seeker).Seek(offset, io.SeekStart); err != nil {
			return errors.Join(err, raw.Close())
		}
		// containerd's client connects at the first Read. Do that now, so
		// that a refusal is this call's error.
		once := &endOnce{from: raw, wrap: x.cut}
		buffered := bufio.NewReaderSize(once, blobBuffer)
		if _, err := buffered.Peek(1); err != nil && !errors.Is(err, io.EOF) {
			return errors.Join(once.cause, raw.Close())
		}
		release := x.release
		if !p.span.hasPlace() { // else it is part of a body that is counted
			c.site.governor.Join()
			place := release
			release = func() {
				c.site.governor.Leave()
				place()
			}
		}
		got = reply{
			body: &blobBody{Reader: buffered, raw: raw, release: sync.OnceFunc(release)},
			size: x.size, part: x.part, at: x.at, proto: x.proto, etag: x.etag,
		}
		x.release = nil
		return nil
	})
	return got, err
}

// cut is what ended a blob's body before its end.
func (x *exchange) cut(err error) error {
	failure := x.client.failure(x.purpose, err)
	if failure.RetryAfter > 0 && !failure.Unasked {
		x.noteEnd(failure) // who goes on behind a cut may be told to wait
	}
	return failure
}

// blobBody is a blob's body, and its place among those of its upstream.
type blobBody struct {
	*bufio.Reader
	raw     io.Closer
	release func()
}

// Close gives the place back. It may be called twice.
func (b *blobBody) Close() error {
	defer b.release()
	return b.raw.Close()
}

// endOnce keeps the end of a body: containerd's reader would open it anew at
// a Read behind the end.
type endOnce struct {
	from  io.Reader
	wrap  func(error) error
	cause error // as from returned it
	err   error
}

func (r *endOnce) Read(p []byte) (n int, err error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err = r.from.Read(p)
	if err != nil {
		r.cause, r.err = err, err
		if err != io.EOF {
			r.err = r.wrap(err)
		}
	}
	return n, r.err
}
