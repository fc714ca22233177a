package cache

import (
	"sync"
	"sync/atomic"
)

// maxMemo bounds how many records are remembered: about 1 KiB each.
const maxMemo = 1024

// memo remembers records as they were decoded. All of it goes at any change of the
// index: what changes a record need not know of the memo, and cannot forget it.
// It is safe for concurrent use.
type memo struct {
	changes atomic.Uint64 // of the index, and of the file that it is in

	mu      sync.Mutex // guards what follows
	of      uint64     // changes had happened when these were read
	records map[memoKey]any
}

type memoKey struct{ bucket, key string }

// forget must be called behind each change, before it is reported.
func (m *memo) forget() { m.changes.Add(1) }

func (m *memo) get(k memoKey) (any, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of != m.changes.Load() {
		return nil, false
	}
	v, ok := m.records[k]
	return v, ok
}

// add remembers what was read when so many changes had happened.
func (m *memo) add(k memoKey, v any, of uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if of < m.of {
		return // others were read since
	}
	if m.of != of || len(m.records) >= maxMemo || m.records == nil {
		m.of, m.records = of, map[memoKey]any{}
	}
	m.records[k] = v
}

// recall is get, and reads the file only if it must. What it returns is shared:
// nobody may change what is in it.
func recall[T any](x *index, bucket, key string) (T, error) {
	if known, ok := x.memo.get(memoKey{bucket, key}); ok {
		return known.(T), nil
	}
	return learn[T](x, bucket, key) // on its own: what it decodes to is on the heap
}

func learn[T any](x *index, bucket, key string) (v T, err error) {
	of := x.memo.changes.Load() // before it is read
	if err := x.get(bucket, key, &v); err != nil {
		var none T
		return none, err
	}
	x.memo.add(memoKey{bucket, key}, v, of)
	return v, nil
}
