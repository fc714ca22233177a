package credentials

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// maxRemembered bounds the entries of a memory; the least recently used
	// are forgotten.
	maxRemembered = 512
	// maxAsking bounds how many questions of a memory run at a time: clients
	// can make up hosts and repositories, and each may cost a process.
	maxAsking = 8
	// failurePause is for how long a question that failed is not asked again,
	// and refusalPause the least time between two that refusals caused.
	failurePause = 30 * time.Second
	refusalPause = 30 * time.Second
	// nothingLife is for how long a source that has nothing is believed.
	nothingLife = 2 * time.Minute
)

// ask gets a value and says for how long it holds; 0 means that it must not be
// remembered.
type ask[V any] func(context.Context) (value V, life time.Duration, err error)

// memory remembers what questions brought, by key. From half its life on, a
// value is asked for anew while it is still given; after its life, callers
// wait for the new one. If that does not come, they get the old one.
type memory[V any] struct {
	name  string        // for the log
	limit time.Duration // for one question
	log   *reporter
	slots chan struct{}

	mu      sync.Mutex // guards entries and all that is in them
	entries *simplelru.LRU[string, *entry[V]]
}

// outcome is what callers of get are told: a value, or that there is nothing.
type outcome[V any] struct {
	value   V
	version int
	err     error
}

// entry is what one question brought last.
type entry[V any] struct {
	known        bool
	last         outcome[V]
	due, expires time.Time // of last: when it is asked for anew, and not given without that

	failure error     // of the last question, nil if it was answered
	retry   time.Time // before this a failed question is not asked again

	forced time.Time  // when a refusal last made it due
	flight *flight[V] // the question that runs
}

// flight is a running question.
type flight[V any] struct {
	done chan struct{} // closed when the outcome is there
	outcome[V]
}

func newMemory[V any](name string, limit time.Duration, log *reporter) *memory[V] {
	entries, _ := simplelru.NewLRU[string, *entry[V]](maxRemembered, nil) // fails only for a size below 1
	return &memory[V]{name: name, limit: limit, log: log, slots: make(chan struct{}, maxAsking), entries: entries}
}

// get returns the value of a key, and how to say that it was refused. Many
// callers share one question, which goes on when they leave.
func (m *memory[V]) get(ctx context.Context, key string, question ask[V]) (V, func(), error) {
	e, told, f := m.look(ctx, key, question)
	if f != nil {
		select {
		case <-f.done:
			told = f.outcome
		case <-ctx.Done():
			told.err = ctx.Err()
		}
	}
	return told.value, m.refusal(e, told.version), told.err
}

// look returns what is known, or else the flight that will tell. It starts one
// if that is due.
func (m *memory[V]) look(ctx context.Context, key string, question ask[V]) (*entry[V], outcome[V], *flight[V]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries.Get(key)
	if !ok {
		e = &entry[V]{}
		m.entries.Add(key, e)
	}
	now := time.Now()
	failedLately := e.failure != nil && now.Before(e.retry)
	fresh := e.known && now.Before(e.due)
	if !failedLately && !fresh && e.flight == nil {
		e.flight = m.start(ctx, key, e, question)
	}
	switch {
	case e.known && (failedLately || now.Before(e.expires)):
		return e, e.last, nil
	case failedLately:
		return e, outcome[V]{err: e.failure}, nil
	}
	return e, outcome[V]{}, e.flight
}

// start asks in the background. Whoever caused it may leave: what a program or
// a cloud answers is then there for the next caller, so only the limit ends it.
func (m *memory[V]) start(ctx context.Context, key string, e *entry[V], question ask[V]) *flight[V] {
	f := &flight[V]{done: make(chan struct{})}
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.limit)
		defer cancel()
		value, life, err := m.slotted(ctx, question)
		if m.finish(e, f, value, life, err) {
			m.log.warn("stale "+m.name+key+err.Error(), "credential not renewed, the old one is used", "source", m.name, "key", key, "err", err)
		}
		close(f.done)
	}()
	return f
}

func (m *memory[V]) slotted(ctx context.Context, question ask[V]) (value V, life time.Duration, err error) {
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
		return question(ctx)
	case <-ctx.Done():
		return value, 0, fmt.Errorf("%s: %d questions run already, none ended in time: %w", m.name, maxAsking, errdefs.ErrUnavailable)
	}
}

// finish notes a question's outcome. It reports whether a failure was covered
// by an old value, so that no caller will tell of it.
func (m *memory[V]) finish(e *entry[V], f *flight[V], value V, life time.Duration, err error) (stale bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	e.flight, e.failure = nil, nil
	_, nothing := errors.AsType[*noneError](err)
	hasValue := e.known && e.last.err == nil
	switch {
	case nothing && !hasValue:
		life = nothingLife // it is an answer
	case err != nil:
		e.failure, e.retry = err, now.Add(failurePause)
		if f.outcome = (outcome[V]{err: err}); hasValue {
			f.outcome = e.last
		}
		e.known = hasValue
		return hasValue
	}
	f.outcome = outcome[V]{value: value, version: e.last.version + 1, err: err}
	e.last, e.known = f.outcome, life > 0
	e.due, e.expires = now.Add(life/2), now.Add(life)
	if !e.known {
		e.last = outcome[V]{version: f.version} // it must not be remembered
	}
	return false
}

// refusal makes a version of an entry's value due, if it is still there: the
// next get asks and waits.
func (m *memory[V]) refusal(e *entry[V], version int) func() {
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		now := time.Now()
		if !e.known || e.last.version != version || !e.forced.IsZero() && now.Sub(e.forced) < refusalPause {
			return
		}
		e.forced, e.due, e.expires, e.failure = now, now, now, nil
	}
}
