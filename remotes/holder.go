package remotes

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
)

// sampleSize is how many bytes of a stored blob a repository must show to be
// taken for a holder: all of a small blob. A digest is no secret, the bytes
// may be: that some registry answers for a digest says nothing, and anybody
// can run one.
const sampleSize = 64 << 10

// origin is for whom a blob is fetched.
func (r *Registry) origin(repo Repository) cache.Origin {
	return cache.Origin{Repository: repo.String(), Private: r.IsPrivate(repo)}
}

// noteHolder records that an upstream of a repository has a blob. A disk that
// takes no writes must not cost the answer; upstream is then asked again.
func (r *Registry) noteHolder(ctx context.Context, repo Repository, dgst digest.Digest) {
	if err := r.Store.PutHolder(dgst, repo.String()); err != nil {
		r.Logger.WarnContext(ctx, "holder not noted", "ns", repo.Host, "repository", repo.Path, "digest", dgst, "err", err)
	}
}

// belongs reports whether a stored blob may be served for a repository: an
// upstream of it is known to have the blob, or one of a repository that
// everybody may have. It is so for every blob where no policy is
// PrivateVerify: then nothing is to be kept from anybody.
//
// Of which repositories a blob is private their policies say now, and not when
// it was fetched. A blob of which nothing is known, as after the index was
// lost or while it cannot be read, belongs to none.
func (r *Registry) belongs(ctx context.Context, repo Repository, dgst digest.Digest) bool {
	if !r.Policies.AnyPrivate() {
		return true
	}
	held, err := r.Store.Holds(dgst, repo.String())
	if held {
		return true
	}
	holders, herr := r.Store.Holders(dgst)
	if err = errors.Join(err, herr); err != nil {
		r.Logger.WarnContext(ctx, "holders not read: upstream is asked", "ns", repo.Host, "repository", repo.Path, "digest", dgst, "err", err)
		return false
	}
	for _, h := range holders {
		host, path, _ := strings.Cut(h, "/")
		if other, err := NewRepository(host, path); err == nil && !r.IsPrivate(other) {
			return true
		}
	}
	return false
}

// prove sees to it that a stored blob belongs to a repository: if it is not
// known to, an upstream of the repository must send a part of it. Errors are
// upstream's, errdefs.ErrDataLoss if it sends other bytes, and an unreadError if
// the stored ones cannot be compared.
func (r *Registry) prove(ctx context.Context, repo Repository, b *cache.Blob) error {
	if r.belongs(ctx, repo, b.Digest()) {
		return nil
	}
	key := perCaller(ctx, "blob "+repo.String()+"@"+b.Digest().String())
	if err := r.negatives.recall(key); err != nil {
		return err
	}
	offset, want, err := r.sample(b)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("whether %s has %s", repo, b.Digest())
	_, _, err = r.proofs.do(ctx, key, what, nil, func(ctx context.Context) (struct{}, error) {
		err := r.askSample(ctx, repo, b.Digest(), offset, want)
		if err != nil {
			r.negatives.note(key, err)
			return struct{}{}, err
		}
		r.noteHolder(ctx, repo, b.Digest())
		return struct{}{}, nil
	})
	return err
}

// sample reads a part of a stored blob that nobody can foretell. As long as
// larder runs it is the same part for all: who knows some of the blob, such as
// what an older one has in common with it, could else try until a part is asked
// for that it knows, under as many names as it likes.
func (r *Registry) sample(b *cache.Blob) (offset int64, data []byte, err error) {
	n := min(b.Size(), sampleSize)
	if b.Size() > n {
		place := binary.BigEndian.Uint64([]byte(r.grants.mac("sample", b.Digest().String())))
		offset = int64(place % uint64(b.Size()-n+1))
	}
	data = make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(b, offset, n), data); err != nil {
		return 0, nil, &unreadError{fmt.Errorf("read %s: %w", b.Digest(), err)}
	}
	return offset, data, nil
}

func (r *Registry) askSample(ctx context.Context, repo Repository, dgst digest.Digest, offset int64, want []byte) error {
	if len(want) == 0 {
		return nil // everybody has the empty blob
	}
	return r.eachUpstream(ctx, repo, func(c *upstream.Client) error {
		got, err := c.Sample(ctx, repo.Path, dgst, offset, len(want))
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("%s does not have %s: it sent other bytes: %w", c.Endpoint(), dgst, errdefs.ErrDataLoss)
		}
		return err
	})
}
