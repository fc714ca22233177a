package remotes

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
)

// resolveTag answers a tag from the store if the rules allow it, else after a
// check. force checks in any case, and then reports a failed check.
func (r *Registry) resolveTag(ctx context.Context, ref Reference, force bool) (Resolved, error) {
	tag, stored := r.storedTag(ctx, ref)
	policy := r.Policies.For(ref.Repository)
	if policy.settles(ref.Tag) {
		res, settled, err := r.settle(ctx, policy, ref, tag, stored, force)
		if settled {
			return res, err
		}
	}
	if !stored && !force {
		if err := r.negatives.recall(perCaller(ctx, ref.String())); err != nil {
			return Resolved{}, err
		}
	}
	if stored && !force {
		switch due, problem := policy.over(r.Freshness).due(tag, time.Now()); {
		case due:
		case problem != nil:
			return r.stale(ref, tag, problem)
		default:
			return r.serveTag(tag, Hit, nil), nil
		}
	}
	res, mine, err := r.awaitCheck(ctx, ref, stored && !force)
	if force && !mine && ctx.Err() == nil {
		// That check began before it was asked for, and may have seen less.
		res, _, err = r.awaitCheck(ctx, ref, false)
	}
	if err == nil || !stored || force {
		return res, err
	}
	return r.stale(ref, tag, err)
}

// storedTag returns a tag whose manifest is there; a tag without it is as
// good as none, and so is one that the disk does not give.
func (r *Registry) storedTag(ctx context.Context, ref Reference) (tag cache.Tag, stored bool) {
	tag, err := r.Store.Tag(ref.String())
	if err != nil {
		if !errdefs.IsNotFound(err) {
			r.Logger.WarnContext(ctx, "tag not read", "ref", ref.String(), "err", err)
		}
		return cache.Tag{}, false
	}
	if has, err := r.Store.Has(tag.Target.Digest); err != nil || !has {
		return tag, false
	}
	// Before any policy was private, it was taken from others on a word.
	return tag, r.belongs(ctx, ref.Repository, tag.Target.Digest)
}

// stale answers with what is stored although a check failed, unless the
// check found the tag deleted and the policy is to refuse then, or upstream
// refused it to who may not have what is private.
func (r *Registry) stale(ref Reference, tag cache.Tag, problem error) (Resolved, error) {
	if isRefusal(problem) && r.IsPrivate(ref.Repository) {
		return Resolved{}, problem
	}
	if errdefs.IsNotFound(problem) {
		switch r.Policies.For(ref.Repository).Deleted {
		case DeletedRefuse:
			return Resolved{}, problem
		case DeletedWarn:
			r.Logger.Warn("upstream has deleted a tag that is still served", "ref", ref.String(), "digest", tag.Target.Digest)
		}
	}
	return r.serveTag(tag, Stale, problem), nil
}

// serveTag answers with what is stored.
func (r *Registry) serveTag(tag cache.Tag, outcome Outcome, problem error) Resolved {
	r.Store.Touch(tag.Name, tag.Target.Digest)
	r.Store.NoteServed(tag.Target.Digest)
	return Resolved{Descriptor: tag.Target, Outcome: outcome, Problem: problem}
}

// awaitCheck joins or starts the check of a tag and waits for it: as long as
// the client does, or only for a moment if something stored can be served.
// mine says that this call started it.
func (r *Registry) awaitCheck(ctx context.Context, ref Reference, impatient bool) (res Resolved, mine bool, err error) {
	var p *haste
	if impatient {
		p = r.patience(ref.Host)
	}
	res, mine, err = r.checks.do(ctx, perCaller(ctx, ref.String()), "check of "+ref.String(), p, func(ctx context.Context) (Resolved, error) {
		return r.check(ctx, ref, impatient)
	})
	if res.Outcome == Miss && !mine {
		res.Outcome = Fill
	}
	return res, mine, err
}

// check asks upstream what a tag points to, brings the manifest, and then
// moves the tag. On any failure the stored tag stays, and notes it. A sparing
// check of a stored tag asks nobody if none is due any more, and only upstreams
// that have an allowance to spare.
func (r *Registry) check(ctx context.Context, ref Reference, sparing bool) (Resolved, error) {
	old, stored := r.storedTag(ctx, ref)
	if sparing && stored {
		// Between the caller's look and now another check may have ended.
		switch due, problem := r.Policies.For(ref.Repository).over(r.Freshness).due(old, time.Now()); {
		case due:
		case problem != nil:
			return Resolved{}, problem
		default:
			return Resolved{Descriptor: old.Target, Outcome: Hit}, nil
		}
	}
	target, source, err := r.askUpstream(ctx, ref, sparing && stored)
	if err != nil {
		switch {
		case stored && isRefusal(err) && r.IsPrivate(ref.Repository):
			r.revoke(ctx, ref.Repository) // it says nothing to anybody else
		case stored && errdefs.IsResourceExhausted(err) && isForCaller(ctx):
			// Nor does a limit of its account, which the ledger keeps.
		case stored:
			r.noteFailure(ctx, ref, err)
		default:
			r.negatives.note(perCaller(ctx, ref.String()), err)
		}
		return Resolved{}, err
	}
	r.negatives.forget(perCaller(ctx, ref.String()))
	r.Store.NoteServed(target.Digest)
	current, still := r.storedTag(ctx, ref)
	unstored := r.passed.why(ref.Repository, target.Digest)
	switch {
	case still && r.Policies.For(ref.Repository).Immutable(ref.Tag):
		// Who looked before another check ended: the first tag wins.
		return Resolved{Descriptor: current.Target, Outcome: Hit}, nil
	case stored && !still:
		return Resolved{Descriptor: target, Outcome: Miss, Unstored: unstored}, nil // a removal while upstream was asked stands
	case unstored != nil:
		return Resolved{Descriptor: target, Outcome: Miss, Unstored: unstored}, nil //nolint:nilerr // no tag points to what is not there
	}
	now := time.Now()
	tag := cache.Tag{Name: ref.String(), Target: target, Source: source, Created: now, Moved: now, Validated: now}
	outcome := Miss
	if stored {
		tag.Created = old.Created
		if old.Target.Digest == target.Digest {
			tag.Moved = old.Moved
			outcome = Hit
		}
	}
	if err := r.Store.PutTag(tag); err != nil {
		// A disk that takes no writes must not cost the answer.
		r.Logger.WarnContext(ctx, "tag not stored", "ref", ref.String(), "err", err)
		return Resolved{Descriptor: target, Outcome: outcome, Unstored: err}, nil
	}
	if cache.SubjectOf(ref.Tag) == "" { // else it is a companion itself
		r.sight(sighting{repo: ref.Repository, digest: target.Digest, at: now})
	}
	return Resolved{Descriptor: target, Outcome: outcome}, nil
}

// noteFailure notes a failed check in a stored tag, as it is now: it may have
// been removed while upstream was asked.
func (r *Registry) noteFailure(ctx context.Context, ref Reference, problem error) {
	tag, stored := r.storedTag(ctx, ref)
	if !stored {
		return
	}
	fresh := r.Policies.For(ref.Repository).over(r.Freshness)
	if ue, ok := errors.AsType[*upstream.Error](problem); ok && ue.Unasked {
		tag = fresh.postponed(tag, ue, time.Now())
		r.Logger.InfoContext(ctx, "tag check put off", "ref", tag.Name, "next", tag.NextCheck, "err", problem)
	} else {
		tag = fresh.failed(tag, problem, time.Now())
		r.Logger.WarnContext(ctx, "tag check failed",
			"ref", tag.Name, "failures", tag.Failures, "next", tag.NextCheck, "err", problem)
	}
	if err := r.Store.PutTag(tag); err != nil {
		r.Logger.ErrorContext(ctx, "tag not stored", "ref", tag.Name, "err", err)
	}
}
