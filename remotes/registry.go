package remotes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
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
	// Fill: from a fill that somebody else had begun.
	Fill Outcome = "fill"
	// Miss: from upstream, for this request.
	Miss Outcome = "miss"
)

// Config is what a Registry is made of. All fields are needed but where they
// say so.
type Config struct {
	Store     *cache.Store
	Pool      *upstream.Pool
	Names     Names
	Routes    Routes
	Freshness Freshness
	// Policies are what rules and templates say. The zero Policies say
	// nothing: Freshness holds for all.
	Policies Policies
	// Access is for private repositories. Zero means DefaultAccess.
	Access Access
	// Companions say what comes along with an image; zero: nothing.
	Companions Companions
	// Prefetch says what is brought ahead of a pull; zero: nothing.
	Prefetch Prefetch
	// Pinned are the pins of the configuration, PinFile has more; nil: none.
	Pinned  []cache.Pin
	PinFile *PinFile
	// Users are asked before lifecycle policies expire images. Nil: nobody is.
	Users Users
	// Logger gets what no client hears of, such as a stale answer's reason.
	Logger *slog.Logger
}

// Registry answers for every registry that larder stands in front of. It is
// safe for concurrent use.
type Registry struct {
	Config

	// What upstreams are asked, once for all who wait.
	checks    shared[Resolved]             // of tags, by reference
	manifests shared[ocispec.Descriptor]   // on their way, by repository and digest
	lists     shared[[]ocispec.Descriptor] // of referrers, by repository and digest
	proofs    shared[struct{}]             // that a repository has a blob, by both
	overdue   *overdue                     // which of these took too long

	// What is remembered of their answers.
	negatives negatives // refusals of what is not stored, by reference
	senders   senders   // who sent bytes of blobs that are not stored
	sources   *sources  // who answered
	grants    *grants   // who was admitted to private repositories

	// What is done with the store.
	reads      singleflight.Group // manifests being read, by digest
	described  *lru.Cache[digest.Digest, ocispec.Descriptor]
	pullSets   *lru.Cache[digest.Digest, []digest.Digest]
	backlog    *backlog    // images whose companions are to be fetched
	prefetches *prefetches // images whose blobs are brought ahead
	expiring   sync.Mutex  // held while lifecycle policies expire images
	passed     *passed     // manifests that could not be stored
}

// NewRegistry makes a Registry.
func NewRegistry(c Config) *Registry {
	c.Policies = c.Policies.over(c.Freshness)
	c.Store.SetPins(cache.PinOwnerConfig, c.Pinned)
	if c.PinFile != nil {
		pins, _ := c.PinFile.Pins() // a problem is told when it is read again
		c.Store.SetPins(cache.PinOwnerFile, pins)
	}
	return &Registry{
		Config: c, overdue: newOverdue(),
		negatives: newNegatives(maxNegatives, negativeTTL), senders: newSenders(), sources: newSources(), grants: newGrants(c.Access),
		described: newDescribed(), pullSets: newPullSets(), backlog: newBacklog(), prefetches: newPrefetches(), passed: newPassed(),
	}
}

// ParseReference reads a reference as a person types it and maps it as if a
// client had asked for it.
func (r *Registry) ParseReference(s string) (Reference, error) {
	return r.Names.ParseReference(s)
}

// Resolved is what a reference points to.
type Resolved struct {
	Descriptor ocispec.Descriptor
	Outcome    Outcome
	// Problem is why a stale answer is one.
	Problem error
	// Unstored is why the manifest is not in the store, nil if it is: the disk
	// does not take it.
	Unstored error
}

// Resolve returns the descriptor of a manifest by tag or digest, and sees to
// it that the manifest is in the store, or at hand if the disk does not take it.
func (r *Registry) Resolve(ctx context.Context, ref Reference) (Resolved, error) {
	if err := r.Policies.Permit(ref.Repository); err != nil {
		return Resolved{}, err
	}
	if ref.Digest == "" {
		return r.resolveTag(ctx, ref, false)
	}
	return r.ensureManifest(ctx, ref, true)
}

// Refresh asks upstream what a tag points to, whatever its window and whatever
// upstream answered a moment ago, and returns its error if it cannot tell. A
// stored tag that is immutable is errdefs.ErrFailedPrecondition.
func (r *Registry) Refresh(ctx context.Context, ref Reference) (Resolved, error) {
	if ref.Tag == "" || ref.Digest != "" {
		return Resolved{}, fmt.Errorf("refresh %s: a digest cannot change: %w", ref, errdefs.ErrInvalidArgument)
	}
	if err := r.Policies.Permit(ref.Repository); err != nil {
		return Resolved{}, err
	}
	began := time.Now()
	res, err := r.resolveTag(ctx, ref, true)
	if err == nil && cache.SubjectOf(ref.Tag) == "" {
		r.sight(sighting{repo: ref.Repository, digest: res.Descriptor.Digest, at: began, force: true})
	}
	return res, err
}

// eachUpstream tries the upstreams of a registry host in their order until one
// succeeds.
func (r *Registry) eachUpstream(ctx context.Context, repo Repository, try func(*upstream.Client) error) error {
	return r.tryUpstreams(ctx, repo, r.Routes.For(repo.Host), try)
}

// tryUpstreams tries upstreams in order until one succeeds. The error is the
// first of the most telling ones.
func (r *Registry) tryUpstreams(ctx context.Context, repo Repository, eps []upstream.Endpoint, try func(*upstream.Client) error) error {
	if err := r.offline(repo); err != nil {
		return err
	}
	var telling error
	for i, ep := range eps {
		if i > 0 && ctx.Err() != nil {
			// That the first ones do not have it says nothing of the others.
			return fmt.Errorf("%s: %d of %d upstreams asked (%v): %w", repo, i, len(eps), telling, context.Cause(ctx)) //nolint:errorlint // see above
		}
		err := try(r.clientFor(ctx, ep))
		r.sources.note(repo, ep, err)
		if err == nil {
			return nil
		}
		if telling == nil || weight(err) > weight(telling) {
			telling = err
		}
		r.Logger.DebugContext(ctx, "upstream failed", "ns", repo.Host, "upstream", ep.String(), "err", err)
	}
	if errdefs.IsPermissionDenied(telling) {
		r.revoke(ctx, repo)
	}
	return telling
}

// weight orders the errors of several upstreams by how much they tell. "Not
// found" counts only if all say so; that one was not even asked, only if none
// that was asked says anything else.
func weight(err error) int {
	ue, ok := errors.AsType[*upstream.Error](err)
	switch {
	case errdefs.IsNotFound(err):
		return 0
	case ok && ue.Unasked:
		return 1
	}
	return 2
}
