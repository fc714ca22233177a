package remotes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cache/lifecycle"
	"github.com/opencontainers/go-digest"
)

const (
	// lifecycleDelay is from the start to the first time that images are
	// expired: pulls that follow a restart come first.
	lifecycleDelay = 5 * time.Minute
	// lifecycleEvery is how often that is done then. ECR takes up to a day.
	lifecycleEvery = time.Hour
)

// Users tell which images are in use on the node, by the digest of manifest or
// config, and by whom.
type Users interface {
	InUse(ctx context.Context) (map[digest.Digest]string, error)
}

// LifecycleReport is what the lifecycle policy of a repository does.
type LifecycleReport struct {
	Repository string `json:"repository"`
	// By says whose policy it is, for instance rule "docker-hub".
	By string `json:"by"`
	// Stored counts the repository's manifests, those included that belong to
	// an index or to an image.
	Stored int `json:"stored"`
	// Decisions are on the images that a rule selects, in the order in which
	// they go.
	Decisions []LifecycleDecision `json:"decisions"`
	// Problem is why nothing of the repository goes, "" if nothing is wrong.
	Problem string `json:"problem,omitempty"`
}

// LifecycleDecision is what becomes of an image. Its names are those of ECR's
// preview (API reference, LifecyclePolicyPreviewResult), where it has them.
type LifecycleDecision struct {
	Digest      digest.Digest        `json:"imageDigest"`
	Tags        []string             `json:"imageTags,omitempty"`
	Pushed      time.Time            `json:"imagePushedAt"`
	Pulled      time.Time            `json:"lastRecordedPullTime,omitzero"`
	Action      lifecycle.EffectType `json:"action"`
	Priority    int                  `json:"appliedRulePriority"`
	Description string               `json:"description,omitempty"`
	// Kept is why the image stays all the same, "" if it goes.
	Kept string `json:"kept,omitempty"`
}

// Lifecycle says what the lifecycle policies would do now with the stored images
// of a repository, or of all that have a policy. A repository without one is
// errdefs.ErrNotFound.
func (r *Registry) Lifecycle(ctx context.Context, only *Repository) ([]LifecycleReport, error) {
	plans, err := r.lifecyclePlans(ctx, only)
	reports := []LifecycleReport{}
	for _, p := range plans {
		reports = append(reports, p.report())
	}
	return reports, err
}

// ExpireImages does what Lifecycle says, and returns what it did. That a
// repository was left alone, stands in its report.
func (r *Registry) ExpireImages(ctx context.Context, only *Repository) ([]LifecycleReport, Removed, error) {
	// Two at a time would both tell of the same images.
	r.expiring.Lock()
	defer r.expiring.Unlock()
	plans, err := r.lifecyclePlans(ctx, only)
	if err != nil {
		return nil, Removed{}, err
	}
	removed, err := r.carryOut(ctx, plans)
	reports := []LifecycleReport{}
	for _, p := range plans {
		reports = append(reports, p.report())
	}
	return reports, removed, err
}

// keepLifecycle expires images from time to time until ctx ends.
func (r *Registry) keepLifecycle(ctx context.Context) {
	if !r.Policies.anyLifecycle() {
		return
	}
	for timer := time.NewTimer(lifecycleDelay); ; timer.Reset(lifecycleEvery) {
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		reports, _, err := r.ExpireImages(ctx, nil)
		if err != nil && ctx.Err() == nil {
			r.Logger.WarnContext(ctx, "images not expired", "err", err)
		}
		for _, rep := range reports {
			if rep.Problem != "" {
				r.Logger.WarnContext(ctx, "images not expired", "repository", rep.Repository, "err", rep.Problem)
			}
		}
	}
}

// lifecyclePlan is what is to be done in one repository.
type lifecyclePlan struct {
	repo    Repository
	by      string
	stored  int
	actions []lifecycle.Action
	err     error
}

func (p *lifecyclePlan) report() LifecycleReport {
	rep := LifecycleReport{Repository: p.repo.String(), By: p.by, Stored: p.stored, Decisions: []LifecycleDecision{}}
	if p.err != nil {
		rep.Problem = p.err.Error()
	}
	for _, a := range p.actions {
		rep.Decisions = append(rep.Decisions, LifecycleDecision{
			Digest: a.Image.Digest, Tags: a.Image.Tags, Pushed: a.Image.Pushed, Pulled: a.Image.Pulled,
			Action: a.Rule.Action.Type, Priority: a.Rule.Priority, Description: a.Rule.Description, Kept: a.Kept,
		})
	}
	return rep
}

// lifecyclePlans evaluates the policies of all repositories, or of one.
func (r *Registry) lifecyclePlans(ctx context.Context, only *Repository) ([]*lifecyclePlan, error) {
	if only != nil {
		if _, _, ok := r.Policies.For(*only).Lifecycle(); !ok {
			return nil, fmt.Errorf("%s has no lifecycle policy; set lifecycle_policy in the rule or template that covers it: %w", only, errdefs.ErrNotFound)
		}
	}
	r.refreshPins()
	shelves, err := r.shelves(only)
	if err != nil {
		return nil, err
	}
	users := map[digest.Digest]string{}
	if r.Users != nil {
		// Who cannot be asked may use all of them.
		if users, err = r.Users.InUse(ctx); err != nil {
			return nil, fmt.Errorf("ask which images are in use: %w", err)
		}
	}
	var plans []*lifecyclePlan
	for _, s := range shelves {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		policy, by, _ := r.Policies.For(s.repo).Lifecycle()
		plan := &lifecyclePlan{repo: s.repo, by: by}
		images, err := r.imagesOn(s, users)
		if plan.stored, plan.err = len(images), err; err == nil {
			plan.actions = policy.Evaluate(images, time.Now())
		}
		for i := range plan.actions {
			if a := &plan.actions[i]; a.Rule.Action.Type == lifecycle.Transition {
				a.Kept = "a node has no archive: transition does nothing"
			}
		}
		plans = append(plans, plan)
	}
	return plans, nil
}

// carryOut removes the images that the plans have go, each with all its tags, and
// notes in the plans which stay after all.
func (r *Registry) carryOut(ctx context.Context, plans []*lifecyclePlan) (Removed, error) {
	defer r.Store.BeginRemoval()()
	r.refreshPins()
	if !anyGoes(plans) {
		return Removed{}, nil
	}
	// Once more below, when the tags are gone. But if it cannot be told what is
	// needed, they had better not go.
	if _, err := r.reachable(ctx, nil); err != nil {
		return Removed{}, err
	}
	var gone []goneImage
	var errs []error
	for _, p := range plans {
		for i := range p.actions {
			a := &p.actions[i]
			if a.Kept != "" || ctx.Err() != nil {
				continue
			}
			img, err := r.forgetExpired(p.repo, a)
			errs = append(errs, err)
			if a.Kept == "" && err == nil {
				gone = append(gone, img)
				r.Logger.InfoContext(ctx, "image expired", "repository", p.repo.String(), "digest", a.Image.Digest,
					"tags", a.Image.Tags, "rule", a.Rule.String(), "by", p.by)
			}
		}
	}
	// The tags are gone: that the caller has left must not leave the blobs.
	removed, err := r.sweep(context.WithoutCancel(ctx), gone)
	return removed, errors.Join(append(errs, err, ctx.Err())...)
}

func anyGoes(plans []*lifecyclePlan) bool {
	for _, p := range plans {
		for _, a := range p.actions {
			if a.Kept == "" {
				return true
			}
		}
	}
	return false
}

// forgetExpired forgets the references of an image that a rule expires. What
// keeps it may have come since the rule was asked.
func (r *Registry) forgetExpired(repo Repository, a *lifecycle.Action) (goneImage, error) {
	ref := Reference{Repository: repo, Digest: a.Image.Digest}
	why := cache.Ending{Why: cache.Expired, Detail: a.Rule.String()}
	if a.Kept = r.whyKept(repo, a.Image, nil); a.Kept != "" {
		return goneImage{}, nil
	}
	img, _, err := r.wholeImage(ref)
	if errdefs.IsNotFound(err) { // of the image its tags are all that is there
		img, err = ImageDetail{Tree: Node{}}, nil
		img.Tree.Digest = ref.Digest
	}
	if err != nil {
		return goneImage{}, err
	}
	for _, tag := range a.Image.Tags {
		// One that has moved since is another image's.
		name := Reference{Repository: repo, Tag: tag}.String()
		if err := r.Store.EndTag(name, ref.Digest, why); err != nil && !errdefs.IsFailedPrecondition(err) {
			return goneImage{}, err
		}
	}
	return goneImage{repo, img, why}, r.forgetAsked(ref)
}
