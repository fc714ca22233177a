package cache

import (
	"sync"
	"sync/atomic"
)

const (
	// maxMemo bounds the bytes of the records that are remembered, maxOneMemo those of
	// each of them. 10,000 tags fit, with as many links.
	maxMemo    = 13 << 20
	maxOneMemo = 64 << 10
	// memoRoom is what a record takes, with its place among the others, besides as many
	// bytes as its name and its text in the index have. With them, 690 bytes count for
	// a usual tag and 520 for a link, where the heap grew by 640 and 390.
	memoRoom = 256
)

// memo remembers records as they were decoded. All of it goes at any change of the
// index: what changes a record need not know of the memo, and cannot forget it.
// It is safe for concurrent use.
type memo struct {
	changes atomic.Uint64 // of the index, and of the file that it is in

	mu      sync.Mutex // guards what follows
	of      uint64     // changes had happened when these were read
	records map[memoKey]remembered
	bytes   int // of all records
}

type memoKey struct{ bucket, key string }

// remembered is a decoded record, and how many bytes it takes.
type remembered struct {
	record any
	bytes  int
}

// forget must be called behind each change, before it is reported.
func (m *memo) forget() { m.changes.Add(1) }

func (m *memo) get(k memoKey) (any, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of != m.changes.Load() {
		return nil, false
	}
	r, ok := m.records[k]
	return r.record, ok
}

// add remembers a record that was read when so many changes had happened, and has so
// many bytes of text. Where there is no room others go, whichever they are: to read one
// again costs little, and who asks for more in turn than there is room for finds some
// of them, where the one that was unused for longest is always the next that is wanted.
func (m *memo) add(k memoKey, v any, text int, of uint64) {
	r := remembered{v, memoRoom + len(k.key) + text}
	m.mu.Lock()
	defer m.mu.Unlock()
	if of < m.of || r.bytes > maxOneMemo {
		return // others were read since, or it is too large
	}
	if m.of != of || m.records == nil {
		m.of, m.records, m.bytes = of, map[memoKey]remembered{}, 0
	}
	m.drop(k)
	for other := range m.records { // in no order
		if m.bytes+r.bytes <= maxMemo {
			break
		}
		m.drop(other)
	}
	m.records[k] = r
	m.bytes += r.bytes
}

// drop forgets one record, if it is there. m.mu is held.
func (m *memo) drop(k memoKey) {
	m.bytes -= m.records[k].bytes
	delete(m.records, k)
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
	text, err := x.getSized(bucket, key, &v)
	if err != nil {
		var none T
		return none, err
	}
	x.memo.add(memoKey{bucket, key}, v, text, of)
	return v, nil
}
