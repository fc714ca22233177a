package remotes

import (
	"context"
	"slices"

	"github.com/larder-project/larder/remotes/upstream"
)

// TagList is one page of a repository's tags.
type TagList struct {
	Tags []string
	// More reports that there are tags after the last one.
	More    bool
	Outcome Outcome
}

// Tags lists a repository's tags: at most n (0: no bound of ours), after the
// tag last. The list is upstream's; if none answers, it is that of the stored
// tags, sorted, and stale. ECR lists cached tags only, which breaks tools
// that look for a version; larder does not follow it there.
func (r *Registry) Tags(ctx context.Context, repo Repository, n int, last string) (TagList, error) {
	if err := r.Policies.Permit(repo); err != nil {
		return TagList{}, err
	}
	var list TagList
	err := r.eachUpstream(ctx, repo, func(c *upstream.Client) (err error) {
		list.Tags, list.More, err = c.Tags(ctx, repo.Path, n, last)
		return err
	})
	if err == nil {
		list.Outcome = Miss
		return list.atMost(n), nil
	}
	if isRefusal(err) && r.IsPrivate(repo) {
		return TagList{}, err
	}
	stored, serr := r.storedTags(repo)
	if serr != nil || len(stored) == 0 {
		return TagList{}, err
	}
	from, _ := slices.BinarySearchFunc(stored, last, func(tag, last string) int {
		if tag <= last {
			return -1
		}
		return 1
	})
	list = TagList{Tags: stored[from:], Outcome: Stale}
	if r.Policies.For(repo).Mode == ModeOffline {
		list.Outcome = Hit // nothing fresher is wanted
	}
	return list.atMost(n), nil
}

// atMost cuts a page to n tags, if n is more than 0: not every upstream does.
func (l TagList) atMost(n int) TagList {
	if n > 0 && len(l.Tags) > n {
		l.Tags, l.More = l.Tags[:n], true
	}
	return l
}

// storedTags returns the names of a repository's stored tags, sorted.
func (r *Registry) storedTags(repo Repository) ([]string, error) {
	all, err := r.Store.Tags()
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, t := range all {
		if ref, err := parseName(t.Name); err == nil && ref.Repository == repo {
			tags = append(tags, ref.Tag)
		}
	}
	slices.Sort(tags)
	return tags, nil
}
