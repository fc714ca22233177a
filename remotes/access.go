package remotes

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
)

// maxKnown is how many stored manifests of a repository upstream is asked about
// where the client named none. Some may be deleted there.
const maxKnown = 3

// ErrNotAccepted says that upstream refuses a pull secret. It is an
// errdefs.ErrPermissionDenied.
var ErrNotAccepted = fmt.Errorf("pull secret not accepted: %w", errdefs.ErrPermissionDenied)

// IsPrivate reports whether a repository is under PrivateVerify: who asks for
// anything of it must be admitted first.
func (r *Registry) IsPrivate(repo Repository) bool {
	return r.Policies.For(repo).Private == PrivateVerify
}

// Admit asks the upstreams of a private repository whether they give a manifest
// (tag or digest) to who shows cred. Where the client asks for no manifest ("")
// it is the one by which they said yes before, or one that is stored. Their
// answer is remembered: see Access. The context it returns, derived from ctx,
// is to serve this client with, and holds its credential: whatever is asked of
// upstream with that context is asked as this client.
//
// It returns errdefs.ErrUnauthenticated if there is no credential, ErrNotAccepted
// if upstream refuses it (401, 403, and 404, which some say instead),
// errdefs.ErrInvalidArgument for a malformed manifest reference, ErrPermissionDenied
// for a repository that is denied, of which no upstream is asked and shown the
// credential, and upstream's error if it cannot tell. For a repository that is
// not private it returns ctx.
func (r *Registry) Admit(ctx context.Context, repo Repository, manifest string, cred Credential) (context.Context, error) {
	if !r.IsPrivate(repo) {
		return ctx, nil
	}
	if err := r.Policies.Permit(repo); err != nil {
		return nil, err
	}
	if cred.IsZero() {
		return nil, fmt.Errorf("%s is private: no credential: %w", repo, errdefs.ErrUnauthenticated)
	}
	if manifest != "" {
		if _, err := repo.WithObject(manifest); err != nil {
			return nil, err
		}
	}
	ctx = withCaller(ctx, caller{credential: cred, id: r.grants.mac(cred.Username, cred.Secret)})
	err := r.grants.admit(ctx, repo.Host, r.whoIs(repo, cred), manifest, r.Freshness.Patience, func(ctx context.Context, last string) (string, error) {
		return r.verify(ctx, repo, manifest, last)
	})
	if isRefusal(err) {
		return nil, fmt.Errorf("%s: %v: %w", repo, err, ErrNotAccepted) //nolint:errorlint // upstream's "not found" is a refusal here
	}
	if err != nil {
		return nil, fmt.Errorf("%s: pull secret not verified: %w", repo, err)
	}
	return ctx, nil
}

// whoIs is the key of a grant: one secret at one repository.
func (r *Registry) whoIs(repo Repository, cred Credential) string {
	return r.grants.mac(repo.String(), cred.Username, cred.Secret)
}

// verify asks upstream as the caller in ctx, and returns the manifest by which
// it said yes.
func (r *Registry) verify(ctx context.Context, repo Repository, manifest, last string) (string, error) {
	candidates := []string{manifest}
	if manifest == "" {
		candidates = r.knownManifests(ctx, repo, last)
	}
	err := fmt.Errorf("no manifest of %s is known to ask for: pull by tag or digest first: %w", repo, errdefs.ErrNotFound)
	for _, candidate := range candidates {
		err = r.eachUpstream(ctx, repo, func(c *upstream.Client) error {
			return c.HasManifest(ctx, repo.Path, candidate)
		})
		if err == nil {
			return candidate, nil
		}
		if !errdefs.IsNotFound(err) {
			break
		}
	}
	return "", err
}

// knownManifests are manifests of a repository that upstream may have: last
// first, then the newest stored ones.
func (r *Registry) knownManifests(ctx context.Context, repo Repository, last string) []string {
	links, err := r.Store.LinksOf(repo.String())
	if err != nil {
		r.Logger.WarnContext(ctx, "manifests of a repository not read", "repository", repo.String(), "err", err)
	}
	slices.SortFunc(links, func(a, b cache.Link) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.Digest, b.Digest))
	})
	var known []string
	if last != "" {
		known = append(known, last)
	}
	for _, l := range links {
		if len(known) < maxKnown && l.Digest.String() != last {
			known = append(known, l.Digest.String())
		}
	}
	return known
}

// revoke takes the grant of a caller back, if upstream has just refused it
// something that it was admitted for. It is asked again at the next request.
func (r *Registry) revoke(ctx context.Context, repo Repository) {
	if who, ok := callerOf(ctx); ok {
		r.grants.drop(r.whoIs(repo, who.credential))
	}
}
