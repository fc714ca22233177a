package unpack

import "sync/atomic"

const (
	// chunkSize and chunks are how far decompression may be ahead of who writes the
	// files: enough for a large file's pages to be copied meanwhile, and for the
	// appliers to have small ones to choose from.
	chunkSize = 256 << 10
	chunks    = 32
)

// chunk is a piece of a layer's tar stream. It goes back to be filled again when the
// last of those who read it has released it.
type chunk struct {
	buf   []byte // all of it
	data  []byte // what is filled
	users atomic.Int32
	free  chan<- *chunk
}

func (c *chunk) release() {
	if c.users.Add(-1) == 0 {
		c.free <- c // there is room for all that were made
	}
}

// segment is a part of a chunk, for whose reader the chunk is kept.
type segment struct {
	chunk    *chunk
	from, to int
	turn     turn
}

func (s *segment) data() []byte { return s.chunk.data[s.from:s.to] }

func (s *segment) len() int64 { return int64(s.to - s.from) }
