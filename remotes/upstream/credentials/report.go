package credentials

import (
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// quiet is for how long the same thing is not logged again.
	quiet = 10 * time.Minute
	// maxReports bounds how many things are told apart.
	maxReports = 256
)

// reporter logs each thing once in a while, however often it happens.
type reporter struct {
	log *slog.Logger

	mu   sync.Mutex
	last *simplelru.LRU[string, time.Time]
}

func newReporter(log *slog.Logger) *reporter {
	last, _ := simplelru.NewLRU[string, time.Time](maxReports, nil) // fails only for a size below 1
	return &reporter{log: log, last: last}
}

// warn logs unless the same key was logged lately.
func (r *reporter) warn(key, message string, args ...any) {
	r.mu.Lock()
	last, known := r.last.Get(key)
	now := time.Now()
	due := !known || now.Sub(last) >= quiet
	if due {
		r.last.Add(key, now)
	}
	r.mu.Unlock()
	if due {
		r.log.Warn(message, args...)
	}
}
