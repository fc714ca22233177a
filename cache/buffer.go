package cache

import "sync"

// copyBuffer is how many bytes are copied at a time: by a fill from upstream to the
// disk, and from the disk into a hash. It is large enough that a syscall a piece is
// cheap (with 64 KiB a fill takes 7 % more of a processor), and small enough that 100
// fills take 38 MiB, with hashBuffers each.
const copyBuffer = 128 << 10

// buffers are those of what is being copied. Each is used again: many fills at once
// would otherwise leave as much garbage as they take. It is safe for concurrent use.
type buffers struct{ pool sync.Pool }

func (b *buffers) take() *[]byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return buf
	}
	buf := make([]byte, copyBuffer)
	return &buf
}

// give takes one back. Nobody may hold a part of it any more.
func (b *buffers) give(buf *[]byte) { b.pool.Put(buf) }
