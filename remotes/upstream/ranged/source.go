package ranged

import (
	"context"
	"errors"
	"io"
)

// Sizes, in bytes.
const (
	// First is how much is asked for at first, by one connection.
	First = 8 << 20
	// Least is what a blob, or the rest of one, must have to be asked for in
	// parts at all.
	Least = 2 * First
	// Part is what further connections ask for at a time. Smaller ones cost more
	// requests and more waits for answers, larger ones more memory.
	Part = 2 << 20
	// maxLeap bounds what one connection alone asks for at a time.
	maxLeap = 1 << 30
)

// ErrIgnored says that an upstream sends the whole in place of a part.
var ErrIgnored = errors.New("upstream does not send parts")

// Source opens parts of one blob. A part's body has the bytes that were asked
// for, or fewer if it was cut, or more if upstream does not keep to it; what
// else is wrong with an answer is an error of the opening.
type Source interface {
	// Open opens the bytes from first to last, both included, by the connection
	// that the Body has anyhow. It is called by the goroutine that reads, one at
	// a time, and may wait for an upstream that asked to be left alone. An
	// upstream that ignores ranges has all before first read and dropped.
	Open(ctx context.Context, first, last int64) (io.ReadCloser, error)
	// Ahead is Open for what is not needed yet, by any goroutine. It never waits
	// for anything but the answer, and fails with ErrIgnored if that is the
	// whole.
	Ahead(ctx context.Context, first, last int64) (io.ReadCloser, error)
	// More asks for the right to one more connection; release gives it back.
	More() (release func(), ok bool)
	// Overlap is More for a connection that takes over from another at once.
	Overlap() (release func(), ok bool)
}
