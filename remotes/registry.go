package remotes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/singleflight"
)

// Outcome says where an answer came from; the mirror sends it as
// X-Larder-Cache.
type Outcome string

const (
	// Hit: from the store, and as fresh as the rules ask.
	Hit Outcome = "hit"
	// Stale: from the store, although a check was due and failed.
	Stale Outcome = "stale"
	// Fill: from a download that somebody else had begun.
	Fill Outcome = "fill"
	// Miss: from upstream, for this request.
	Miss Outcome = "miss"
)

// Config is what a Registry is made of. All fields are needed.
type Config struct {
	Store     *cache.Store
	Pool      *upstream.Pool
	Names     Names
	Routes    Routes
	Freshness Freshness
	// Logger gets what no client hears of, such as a stale answer's reason.
	Logger *slog.Logger
}

// Registry answers for every registry that larder stands in front of. It is
// safe for concurrent use.
type Registry struct {
	Config

	checks    singleflight.Group // tag checks, by reference
	manifests singleflight.Group // manifest downloads, by repository and digest

	mu      sync.Mutex
	overdue map[string]int // checks that outlasted Patience, by registry host
}

// NewRegistry makes a Registry.
func NewRegistry(c Config) *Registry {
	return &Registry{Config: c, overdue: map[string]int{}}
}

// ParseReference reads a reference as a person types it and maps it as if a
// client had asked for it.
func (r *Registry) ParseReference(s string) (Reference, error) {
	ref, err := ParseReference(s)
	if err != nil {
		return Reference{}, err
	}
	repo, err := r.Names.Map(ref.Host, ref.Path)
	if err != nil {
		return Reference{}, fmt.Errorf("reference %q: %w", s, err)
	}
	ref.Repository = repo
	return ref, nil
}

// Resolved is what a reference points to.
type Resolved struct {
	Descriptor ocispec.Descriptor
	Outcome    Outcome
	// Problem is why a stale answer is one.
	Problem error
}

// Resolve returns the descriptor of a manifest by tag or digest, and sees to
// it that the manifest is in the store.
func (r *Registry) Resolve(ctx context.Context, ref Reference) (Resolved, error) {
	if ref.Digest == "" {
		return r.resolveTag(ctx, ref, false)
	}
	desc, outcome, err := r.ensureManifest(ctx, ref, true)
	return Resolved{Descriptor: desc, Outcome: outcome}, err
}

// Refresh asks upstream what a tag points to, whatever its window, and
// returns its error if it cannot tell.
func (r *Registry) Refresh(ctx context.Context, ref Reference) (Resolved, error) {
	if ref.Tag == "" || ref.Digest != "" {
		return Resolved{}, fmt.Errorf("refresh %s: a digest cannot change: %w", ref, errdefs.ErrInvalidArgument)
	}
	return r.resolveTag(ctx, ref, true)
}

// Manifest is a stored manifest or index with its bytes.
type Manifest struct {
	Resolved
	Data []byte
}

// Manifest returns a manifest by tag or digest. One that was damaged on disk
// is thrown away and fetched again.
func (r *Registry) Manifest(ctx context.Context, ref Reference) (Manifest, error) {
	m, err := r.manifest(ctx, ref)
	if errdefs.IsDataLoss(err) && m.Descriptor.Digest != "" {
		r.Logger.ErrorContext(ctx, "stored manifest is damaged and is fetched again", "ref", ref.String(), "err", err)
		if derr := r.Store.Delete(ctx, m.Descriptor.Digest); derr != nil && !errdefs.IsNotFound(derr) {
			return Manifest{}, errors.Join(err, derr)
		}
		m, err = r.manifest(ctx, ref)
	}
	if err != nil {
		return Manifest{}, err
	}
	return m, nil
}

func (r *Registry) manifest(ctx context.Context, ref Reference) (m Manifest, err error) {
	if ref.Digest != "" {
		m.Descriptor, m.Outcome, err = r.ensureManifest(ctx, ref, false)
	} else {
		m.Resolved, err = r.resolveTag(ctx, ref, false)
	}
	if err != nil {
		return Manifest{}, err
	}
	if m.Data, err = r.readManifest(m.Descriptor); err != nil {
		return m, fmt.Errorf("manifest %s: %w", ref, err)
	}
	return m, nil
}

// readManifest reads a manifest from the store. Its size on disk may be
// anything, if someone tampered with it: it is bounded, and checked.
func (r *Registry) readManifest(desc ocispec.Descriptor) ([]byte, error) {
	b, err := r.Store.Open(desc.Digest)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	data, err := io.ReadAll(io.LimitReader(b, upstream.MaxManifestSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	if desc.Digest.Algorithm().FromBytes(data) != desc.Digest {
		return nil, fmt.Errorf("stored manifest %s does not have its digest: %w", desc.Digest, errdefs.ErrDataLoss)
	}
	return data, nil
}

// eachUpstream tries the upstreams of a registry host in order until one
// succeeds. The error is the most telling one: that all say "not found", or
// else the first that says anything else.
func (r *Registry) eachUpstream(ctx context.Context, repo Repository, try func(*upstream.Client) error) error {
	var telling error
	for _, ep := range r.Routes.For(repo.Host) {
		err := try(r.Pool.Client(ep))
		if err == nil {
			return nil
		}
		if telling == nil || errdefs.IsNotFound(telling) && !errdefs.IsNotFound(err) {
			telling = err
		}
		if ctx.Err() != nil {
			return errors.Join(telling, context.Cause(ctx))
		}
		r.Logger.DebugContext(ctx, "upstream failed", "ns", repo.Host, "upstream", ep.String(), "err", err)
	}
	return telling
}

// markOverdue counts a check that somebody stopped waiting for; the returned
// func takes it back.
func (r *Registry) markOverdue(host string) (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.overdue[host]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.overdue[host]--; r.overdue[host] <= 0 {
			delete(r.overdue, host)
		}
	}
}

// patience is how long a pull with a stored image waits for a check now.
func (r *Registry) patience(host string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.overdue[host] > 0 {
		return 0
	}
	return r.Freshness.Patience
}
