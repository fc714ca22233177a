package remotes

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// negativeTTL is how long a refusal of upstream is taken for its word: long
// enough for the GET that containerd sends behind a refused HEAD, and for a
// pod that restarts in a loop, short enough that nobody waits for it.
const negativeTTL = 5 * time.Second

// maxNegatives bounds the memory for names that clients make up.
const maxNegatives = 4096

// negatives remembers for a while what upstream does not have or does not give.
// It is safe for concurrent use.
type negatives struct {
	ttl     time.Duration
	entries *lru.Cache[string, negative]
}

type negative struct {
	err   error
	until time.Time
}

func newNegatives(size int, ttl time.Duration) negatives {
	entries, _ := lru.New[string, negative](size) // fails only for a size below 1
	return negatives{ttl: ttl, entries: entries}
}

// note remembers a refusal. Other failures are not upstream's last word.
func (n negatives) note(name string, err error) {
	if isRefusal(err) {
		n.entries.Add(name, negative{err: err, until: time.Now().Add(n.ttl)})
	}
}

// recall returns the refusal of a name, nil if none is remembered.
func (n negatives) recall(name string) error {
	e, ok := n.entries.Get(name)
	if !ok {
		return nil
	}
	if !time.Now().Before(e.until) {
		n.entries.Remove(name)
		return nil
	}
	return e.err
}

// forget is for what upstream has after all.
func (n negatives) forget(name string) { n.entries.Remove(name) }
