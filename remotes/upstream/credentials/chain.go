package credentials

import (
	"context"
	"errors"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/larder-project/larder/remotes/upstream"
)

// maxAnswers bounds for how many repositories the source of their last
// credential is remembered: clients can make repositories up.
const maxAnswers = 1024

// Chain asks its sources for a credential, one after the other. It implements
// upstream.Credentials and is safe for concurrent use. Make one with New.
type Chain struct {
	links []link
	log   *reporter
	given *lru.Cache[query, answer]
}

var _ upstream.Credentials = (*Chain)(nil)

// link is a source and what its failure means.
type link struct {
	source
	// explicit: the configuration names this source for this very repository,
	// so that nothing may stand in for it.
	explicit bool
}

func newChain(log *reporter, links ...link) *Chain {
	given, _ := lru.New[query, answer](maxAnswers) // fails only for a size below 1
	return &Chain{links: links, log: log, given: given}
}

// Credential implements upstream.Credentials. The error names the source that
// failed and not the host, which the caller knows, and is nil if no source knows the repository. A source that runs a
// program or asks AWS goes on when ctx ends, for the next caller.
func (c *Chain) Credential(ctx context.Context, host, repository string) (upstream.Credential, error) {
	q, err := newQuery(host, repository)
	if err != nil {
		return upstream.Credential{}, err
	}
	var failed []error
	for _, l := range c.links {
		a, err := l.find(ctx, q)
		if ctx.Err() != nil && err != nil {
			return upstream.Credential{}, ctx.Err()
		}
		_, none := errors.AsType[*noneError](err)
		switch {
		case err == nil && !a.credential.IsZero():
			c.given.Add(q, a)
			c.passedOver(q, failed)
			return a.credential, nil
		case err == nil, none && !l.explicit:
		case l.explicit:
			return upstream.Credential{}, err
		default:
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		return upstream.Credential{}, join(failed)
	}
	return upstream.Credential{}, nil
}

// join is errors.Join on one line.
func join(errs []error) (all error) {
	for _, err := range errs {
		switch {
		case all == nil:
			all = err
		case err != nil:
			all = fmt.Errorf("%w; %w", all, err)
		}
	}
	return all
}

// passedOver logs the failures that a later source made good.
func (c *Chain) passedOver(q query, failed []error) {
	for _, err := range failed {
		c.log.warn("passed over "+q.host+err.Error(), "credential source failed, the next one is used", "upstream", q.host, "err", err)
	}
}

// Refuse implements upstream.Credentials. A source is asked anew for a refused
// credential at most once in 30 s. If that fails, the refused one is given
// again: a registry refuses a good credential too, for what it must not read.
func (c *Chain) Refuse(host, repository string, refused upstream.Credential) {
	q, err := newQuery(host, repository)
	if err != nil || refused.IsZero() {
		return
	}
	if a, ok := c.given.Peek(q); ok && a.credential == refused && a.refuse != nil {
		a.refuse()
	}
}
