package ranged

import "sync"

// blockSize is the unit in which memory is taken as bytes arrive.
const blockSize = 128 << 10

// Memory bounds, over all bodies that share it, the bytes that have arrived
// and cannot be delivered yet. It is safe for concurrent use.
type Memory struct {
	blocks sync.Pool // of *block

	mu   sync.Mutex // guards left
	left int64
}

// NewMemory makes a Memory of n bytes. None of it is taken before it is used.
func NewMemory(n int64) *Memory {
	return &Memory{left: n, blocks: sync.Pool{New: func() any { return new(block) }}}
}

// Left is how many bytes nobody has reserved.
func (m *Memory) Left() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left
}

// reserve promises n bytes. It never waits: who gets none goes on without.
func (m *Memory) reserve(n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > m.left {
		return false
	}
	m.left -= n
	return true
}

func (m *Memory) release(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left += n
}

func (m *Memory) take() *block { return m.blocks.Get().(*block) }

func (m *Memory) give(b *block) {
	b.read, b.filled = 0, 0
	m.blocks.Put(b)
}

// block holds bytes from read up to filled. What is behind filled belongs to
// the goroutine that receives, what is before it to the one that delivers.
type block struct {
	read, filled int
	data         [blockSize]byte
}
