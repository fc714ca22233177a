package remotes

import (
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
)

// senderMemory is how long an upstream comes last for a blob of which it sent
// bytes that did not make the blob.
const senderMemory = 10 * time.Minute

// maxSenders bounds the memory for them.
const maxSenders = 1024

// senders remembers which upstream sent last for a blob. Who asks for that blob
// again did not get it, whatever was wrong: short bytes, wrong ones, or none.
// It is safe for concurrent use.
type senders struct {
	last *lru.Cache[digest.Digest, sender]
}

type sender struct {
	endpoint upstream.Endpoint
	at       time.Time
}

func newSenders() senders {
	last, _ := lru.New[digest.Digest, sender](maxSenders) // fails only for a size below 1
	return senders{last: last}
}

// note remembers who begins to send a blob.
func (s senders) note(dgst digest.Digest, ep upstream.Endpoint) {
	s.last.Add(dgst, sender{endpoint: ep, at: time.Now()})
}

// sent reports whether an upstream was the last to send a blob, not long ago.
func (s senders) sent(dgst digest.Digest, ep upstream.Endpoint) bool {
	last, ok := s.last.Get(dgst)
	return ok && last.endpoint == ep && time.Since(last.at) <= senderMemory
}

// order returns the upstreams in the order in which to ask for a blob: as the
// route has them, but who sent last comes last.
func (s senders) order(dgst digest.Digest, route []upstream.Endpoint) []upstream.Endpoint {
	last, ok := s.last.Get(dgst)
	if !ok || time.Since(last.at) > senderMemory {
		return route
	}
	i := slices.Index(route, last.endpoint)
	if i < 0 {
		return route
	}
	return append(slices.Delete(slices.Clone(route), i, i+1), last.endpoint)
}
