package remotes

import (
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
	for {
		b, err := r.openWhole(arrive, dgst)
		if err == nil {
			if err := r.prove(arrive, repo, b); err != nil {
				return nil, errors.Join(err, b.Close())
			}
			r.Store.Touch("", dgst)
			r.holds.note(dgst)
			return &Blob{ReadSeekCloser: b, Size: b.Size(), Outcome: Hit}, nil
		}
		if !errdefs.IsNotFound(err) {
			return nil, err
		}
		blob, err := r.joinFill(arrive, reader, repo, dgst)
		if !errdefs.IsAlreadyExists(err) {
			return blob, err
		}
		// It was published between our two looks.
		if arrive.Err() != nil {
			return nil, fmt.Errorf("blob %s: %w", dgst, context.Cause(arrive))
		}
	}
}

// openWhole opens a published blob. If its file has another size than the one
// it was published with, somebody else changed it: it is thrown away.
func (r *Registry) openWhole(ctx context.Context, dgst digest.Digest) (*cache.Blob, error) {
	b, err := r.Store.Open(dgst)
	if err != nil {
		return nil, err
	}
	facts, err := r.Store.Facts(dgst)
	// The size was measured if the source is known: both are noted at once,
	// when the blob is published. Without one it is what a manifest claims.
	if measured := err == nil && facts.Source != ""; !measured || facts.Size == b.Size() {
		return b, nil // also when the index lost it: that must not cost the blob
	}
	return nil, errors.Join(
		r.throwAway(ctx, dgst, fmt.Errorf("file has %d bytes, %d were published: %w", b.Size(), facts.Size, errdefs.ErrDataLoss)),
		b.Close())
}

// throwAway deletes a blob that was damaged on disk. It returns
// errdefs.ErrNotFound, as if the blob had never been there.
func (r *Registry) throwAway(ctx context.Context, dgst digest.Digest, damage error) error {
	r.Logger.ErrorContext(ctx, "stored blob is damaged and is thrown away", "digest", dgst, "err", damage)
	if err := r.Store.Delete(ctx, dgst); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("throw away damaged blob: %w", err)
	}
	return fmt.Errorf("blob %s was damaged: %v: %w", dgst, damage, errdefs.ErrNotFound) //nolint:errorlint // it is no longer there, that is all
}

func (r *Registry) joinFill(arrive, reader context.Context, repo Repository, dgst digest.Digest) (*Blob, error) {
	fill, started, err := r.fill(arrive, repo, dgst)
	if err != nil {
		return nil, err
	}
	if !r.mayShare(fill, repo) {
		return nil, r.awaitOther(arrive, fill)
	}
	if err := fill.WaitReadable(arrive, 0); err != nil {
		if !started && arrive.Err() == nil && r.isOthers(fill, repo, err) {
			return nil, errAskAgain
		}
		return nil, err
	}
	rd, err := fill.NewReader(reader)
	if err != nil {
		return nil, err
	}
	if rd.Size() < 0 && arrive.Err() != nil {
		// Without a size no header can be sent before the first byte, and
		// that is later than the client may wait.
		return nil, errors.Join(fmt.Errorf("blob %s: the first bytes have not arrived: %w", dgst, context.Cause(arrive)), rd.Close())
	}
	outcome := Fill
	if started {
		outcome = Miss
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
// alone: it is about another repository, or refused to another caller.
func (r *Registry) isOthers(fill *cache.Fill, repo Repository, err error) bool {
	return fill.Origin().Repository != repo.String() || isRefusal(err) && r.IsPrivate(repo)
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
	hint := int64(-1)
	if facts, err := r.Store.Facts(dgst); err == nil && facts.Size > 0 {
		hint = facts.Size
	}
	return r.Store.FillFor(ctx, r.origin(repo), dgst, hint, blobSource{registry: r, repo: repo, digest: dgst})
}

// blobSource is the cache.Source of a blob: its repository at the upstreams
// of its registry host, anew at every attempt, and first those that have not
// just failed to bring it.
type blobSource struct {
	registry *Registry
	repo     Repository
	digest   digest.Digest
}

var _ cache.Source = blobSource{}

// Open implements cache.Source.
func (s blobSource) Open(ctx context.Context, offset int64) (cache.Stream, error) {
	r := s.registry
	var stream cache.Stream
	err := r.tryUpstreams(ctx, s.repo, r.senders.order(s.digest, r.Routes.For(s.repo.Host)), func(c *upstream.Client) error {
		body, size, err := c.Blob(ctx, s.repo.Path, s.digest, offset)
		if err != nil {
			return err
		}
		r.senders.note(s.digest, c.Endpoint())
		stream = cache.Stream{Body: body, Size: size, Upstream: c.Endpoint().String()}
		return nil
	})
	return stream, err
}
