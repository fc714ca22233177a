package remotes

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/larder-project/larder/remotes/upstream"
)

// maxAnswers and maxUpstreams bound the memory for repositories and registry
// hosts that clients make up.
const (
	maxAnswers   = 1024
	maxUpstreams = 256
)

// Sources says who answered since the daemon began. It is kept in memory alone,
// and bounded: the least recently asked are forgotten.
type Sources struct {
	// Repositories holds the last answer for each, the latest first.
	Repositories []Answer `json:"repositories"`
	// Upstreams are those that were asked, in the order of their names.
	Upstreams []UpstreamUse `json:"upstreams"`
}

// Answer is the last answer for a repository that did not come from the store.
type Answer struct {
	Repository string    `json:"repository"`
	Upstream   string    `json:"upstream"`
	At         time.Time `json:"at"`
}

// UpstreamUse counts what became of the questions to an upstream.
type UpstreamUse struct {
	Upstream string `json:"upstream"`
	Answers  int64  `json:"answers"`
	// PassedOver counts its failures, after which the next upstream of the
	// route was asked if there is one, by ECR's name for them: see
	// upstream.Error.Reason.
	PassedOver map[string]int64 `json:"passedOver,omitempty"`
}

// Sources returns who answered since the daemon began.
func (r *Registry) Sources() Sources { return r.sources.all() }

// sources remembers who answered. It is safe for concurrent use.
type sources struct {
	mu        sync.Mutex // guards all below
	answers   *lru.Cache[Repository, Answer]
	upstreams *lru.Cache[upstream.Endpoint, *UpstreamUse]
}

func newSources() *sources {
	answers, _ := lru.New[Repository, Answer](maxAnswers) // fails only for a size below 1
	upstreams, _ := lru.New[upstream.Endpoint, *UpstreamUse](maxUpstreams)
	return &sources{answers: answers, upstreams: upstreams}
}

// note remembers what became of a question. A caller that left, and a failure of
// larder's own, say nothing of the upstream.
func (s *sources) note(repo Repository, ep upstream.Endpoint, err error) {
	failure, isUpstream := errors.AsType[*upstream.Error](err)
	if err != nil && (!isUpstream || errors.Is(err, context.Canceled)) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	use, ok := s.upstreams.Get(ep)
	if !ok {
		use = &UpstreamUse{Upstream: ep.String(), PassedOver: map[string]int64{}}
		s.upstreams.Add(ep, use)
	}
	if err != nil {
		use.PassedOver[failure.Reason()]++
		return
	}
	use.Answers++
	s.answers.Add(repo, Answer{Repository: repo.String(), Upstream: ep.String(), At: time.Now()})
}

// last returns the last answer for a repository, nil if none is remembered.
func (s *sources) last(repo Repository) *Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer, ok := s.answers.Peek(repo)
	if !ok {
		return nil
	}
	return &answer
}

func (s *sources) all() Sources {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := Sources{Repositories: s.answers.Values(), Upstreams: []UpstreamUse{}}
	slices.Reverse(all.Repositories) // they come with the oldest first
	for _, use := range s.upstreams.Values() {
		counted := *use
		counted.PassedOver = maps.Clone(use.PassedOver)
		all.Upstreams = append(all.Upstreams, counted)
	}
	slices.SortFunc(all.Upstreams, func(a, b UpstreamUse) int { return cmp.Compare(a.Upstream, b.Upstream) })
	return all
}
