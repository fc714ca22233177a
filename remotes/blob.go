package remotes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
)

// Blob is an open blob, published or still arriving. Close it.
type Blob struct {
	io.ReadSeekCloser
	// Size in bytes; -1 if it is still arriving and upstream did not tell.
	Size    int64
	Outcome Outcome
}

// Blob opens a blob. On a miss it starts a fill, or joins the one that runs,
// and returns when the first byte can be read, or when arrive ends: with the
// blob if an upstream has begun to send and told its size, else with an error.
// The fill goes on in either case.
//
// arrive bounds that wait; reader is for the reading behind it.
func (r *Registry) Blob(arrive, reader context.Context, repo Repository, dgst digest.Digest) (*Blob, error) {
	if err := r.Policies.Permit(repo); err != nil {
		return nil, err
	}
	r.notePull(arrive, repo, dgst)
	for {
		blob, err := r.hit(arrive, repo, dgst)
		if unread, ok := errors.AsType[*unreadError](err); ok {
			return r.passBlob(arrive, reader, repo, dgst, unread)
		}
		if !errors.Is(err, errNotStored) {
			return blob, err
		}
		if m, ok := r.passed.get(repo, dgst); ok {
			return &Blob{ReadSeekCloser: bytesReader{bytes.NewReader(m.data)}, Size: int64(len(m.data)), Outcome: Miss}, nil
		}
		blob, err = r.joinFill(arrive, reader, repo, dgst)
		if !errdefs.IsAlreadyExists(err) {
			return blob, err
		}
		// It was published between our two looks.
		if arrive.Err() != nil {
			return nil, fmt.Errorf("blob %s: %w", dgst, context.Cause(arrive))
		}
	}
}

// hit opens a published blob. It returns errNotStored if there is none, also if
// the disk lost it and it was set aside, and an unreadError if it is there and
// the disk does not give it.
func (r *Registry) hit(ctx context.Context, repo Repository, dgst digest.Digest) (*Blob, error) {
	b, err := r.Store.OpenVerified(ctx, dgst)
	switch {
	case errdefs.IsNotFound(err):
		return nil, errNotStored
	case err != nil && ctx.Err() != nil:
		return nil, err // it is still being read, and no fault is known
	case err != nil:
		return nil, &unreadError{err}
	}
	err = r.prove(ctx, repo, b)
	if err == nil && b.Size() > 0 {
		// While nothing is sent yet, upstream can still be asked in its place.
		if _, rerr := b.ReadAt(make([]byte, 1), 0); rerr != nil {
			err = &unreadError{rerr}
		}
	}
	if err != nil {
		if has, herr := r.Store.Has(dgst); herr == nil && !has && errors.As(err, new(*unreadError)) {
			err = errNotStored
		}
		return nil, errors.Join(err, b.Close())
	}
	r.Store.Touch("", dgst)
	r.Store.NoteServed(dgst)
	return &Blob{ReadSeekCloser: b, Size: b.Size(), Outcome: Hit}, nil
}

// errNotStored is the store's "not found", which is not upstream's.
var errNotStored = fmt.Errorf("not stored: %w", errdefs.ErrNotFound)

// unreadError says that a blob is stored and that the disk does not give it.
type unreadError struct{ err error }

func (e *unreadError) Error() string { return e.err.Error() }
func (e *unreadError) Unwrap() error { return e.err }

// bytesReader is a reader of memory that is closed like others.
type bytesReader struct{ *bytes.Reader }

// Close does nothing.
func (bytesReader) Close() error { return nil }

// passBlob fetches a blob beside a stored one that cannot be read.
func (r *Registry) passBlob(arrive, reader context.Context, repo Repository, dgst digest.Digest, why error) (*Blob, error) {
	rd, err := r.Store.Bypass(arrive, reader, r.origin(repo), dgst, r.hint(dgst), blobSource{registry: r, repo: repo, digest: dgst}, why)
	if err != nil {
		return nil, err
	}
	return r.awaitBytes(arrive, rd, Miss)
}

// setAside takes a damaged blob out of the way. It returns errdefs.ErrNotFound,
// as if the blob had never been there.
func (r *Registry) setAside(ctx context.Context, dgst digest.Digest, damage error) error {
	if err := r.Store.Damaged(ctx, dgst, damage); err != nil {
		return err
	}
	return fmt.Errorf("blob %s was damaged: %v: %w", dgst, damage, errdefs.ErrNotFound) //nolint:errorlint // it is no longer there, that is all
}

func (r *Registry) joinFill(arrive, reader context.Context, repo Repository, dgst digest.Digest) (*Blob, error) {
	rd, started, err := r.Store.OpenFill(arrive, reader, r.origin(repo), dgst, r.hint(dgst), blobSource{registry: r, repo: repo, digest: dgst})
	if err != nil {
		return nil, err
	}
	fill := rd.Fill()
	if !r.mayShare(fill, repo) {
		return nil, errors.Join(rd.Close(), r.awaitOther(arrive, fill))
	}
	outcome := Fill
	if started {
		outcome = Miss
	}
	blob, err := r.awaitBytes(arrive, rd, outcome)
	if err == nil || started || arrive.Err() != nil {
		return blob, err
	}
	// One whose bytes the disk does not take keeps only some of them.
	if progress, _ := fill.Progress(); progress.Unstored != nil || r.isOthers(fill, repo, err) {
		return nil, errAskAgain
	}
	return nil, err
}

// awaitBytes waits for the first bytes of a fill.
func (r *Registry) awaitBytes(arrive context.Context, rd *cache.FillReader, outcome Outcome) (*Blob, error) {
	fill := rd.Fill()
	if err := fill.WaitReadable(arrive, 0); err != nil {
		return nil, errors.Join(err, rd.Close())
	}
	if rd.Size() < 0 && arrive.Err() != nil {
		// Without a size no header can be sent before the first byte, and
		// that is later than the client may wait.
		return nil, errors.Join(fmt.Errorf("blob %s: the first bytes have not arrived: %w", fill.Digest(), context.Cause(arrive)), rd.Close())
	}
	return &Blob{ReadSeekCloser: rd, Size: rd.Size(), Outcome: outcome}, nil
}

// errAskAgain says that the store is to be looked at anew, as if the blob had been
// published between two looks.
var errAskAgain = fmt.Errorf("look again: %w", errdefs.ErrAlreadyExists)

// mayShare reports whether the bytes of a running fill may be handed out for a
// repository.
func (r *Registry) mayShare(fill *cache.Fill, repo Repository) bool {
	origin := fill.Origin()
	return !origin.Private || origin.Repository == repo.String()
}

// isOthers reports whether the failure of a fill that others began is theirs
// alone: it is about another repository, or refused to another caller, or the blob
// is longer than they wanted it.
func (r *Registry) isOthers(fill *cache.Fill, repo Repository, err error) bool {
	return fill.Origin().Repository != repo.String() || isRefusal(err) && r.IsPrivate(repo) || errors.Is(err, errLonger)
}

// awaitOther waits for the end of a fill whose bytes are another repository's.
// They can be compared once they are whole, and not before.
func (r *Registry) awaitOther(ctx context.Context, fill *cache.Fill) error {
	err := fill.Wait(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("blob %s is on its way for a private repository: %w", fill.Digest(), err)
	}
	return errAskAgain // whatever became of it
}

func (r *Registry) fill(ctx context.Context, repo Repository, dgst digest.Digest) (*cache.Fill, bool, error) {
	return r.Store.FillFor(ctx, r.origin(repo), dgst, r.hint(dgst), blobSource{registry: r, repo: repo, digest: dgst})
}

// hint is a blob's size as a manifest gave it, -1 if none did.
func (r *Registry) hint(dgst digest.Digest) int64 {
	if facts, err := r.Store.Facts(dgst); err == nil && facts.Size > 0 {
		return facts.Size
	}
	return -1
}

// blobSource is the cache.Source of a blob: its repository at the upstreams
// of its registry host, anew at every attempt, and first those that have not
// just failed to bring it.
type blobSource struct {
	registry *Registry
	repo     Repository
	digest   digest.Digest
	behind   bool // no client waits for it, nor is a prefetch to make way for it
}

var _ cache.Source = blobSource{}

// Open implements cache.Source.
func (s blobSource) Open(ctx context.Context, offset int64) (cache.Stream, error) {
	r := s.registry
	var stream cache.Stream
	err := r.tryUpstreams(ctx, s.repo, r.senders.order(s.digest, r.Routes.For(s.repo.Host)), func(c *upstream.Client) error {
		if !s.behind {
			ctx = upstream.WithWaiting(ctx, func() { r.prefetches.makeWay(c.Endpoint()) })
		}
		hint := r.hint(s.digest)
		if offset == 0 && r.senders.sent(s.digest, c.Endpoint()) {
			hint = -1 // whatever was wrong: parts are not, this time
		}
		body, size, err := c.BlobInParts(ctx, s.repo.Path, s.digest, offset, hint)
		if err != nil {
			return err
		}
		r.senders.note(s.digest, c.Endpoint())
		stream = cache.Stream{Body: body, Size: size, Upstream: c.Endpoint().String()}
		return nil
	})
	return stream, err
}
