package cache

import (
	"context"
	"io"
	"time"
)

// Source is where the bytes of one blob come from.
type Source interface {
	// Open returns the blob's bytes from offset on. It is called once for
	// each attempt, never twice at a time. The context ends with the
	// attempt. Errors are errdefs' kinds; the fill hands them to its readers
	// as they are.
	Open(ctx context.Context, offset int64) (Stream, error)
}

// Stream is an open body of a Source.
type Stream struct {
	// Body starts at the offset that was asked for.
	Body io.ReadCloser
	// Size is the size of the whole blob in bytes, -1 if upstream did not
	// tell.
	Size int64
	// Upstream names who sends, for the record.
	Upstream string
}

// FillPolicy says when a fill is given up. A field that is 0 or less has its
// default of DefaultFillPolicy, but Pause, which may be 0.
type FillPolicy struct {
	// Stall is the time in which MinSpeed bytes a second must have arrived
	// on average, else the attempt is ended.
	Stall time.Duration
	// MinSpeed is in bytes a second.
	MinSpeed int64
	// Attempts is how often in a row an attempt may be fruitless before the
	// fill fails: bring no byte, or be ended by Stall within its first span.
	Attempts int
	// Pause is the time before the second attempt; it doubles from there.
	Pause time.Duration
}

// DefaultFillPolicy gives an upstream half a minute of near silence, and five
// attempts.
func DefaultFillPolicy() FillPolicy {
	return FillPolicy{Stall: 30 * time.Second, MinSpeed: 1 << 10, Attempts: 5, Pause: 200 * time.Millisecond}
}

// spanBytes is how many bytes each Stall must bring.
func (p FillPolicy) spanBytes() int64 {
	return max(1, int64(p.Stall.Seconds()*float64(p.MinSpeed)))
}

func (p FillPolicy) withDefaults() FillPolicy {
	def := DefaultFillPolicy()
	if p.Stall <= 0 {
		p.Stall = def.Stall
	}
	if p.MinSpeed <= 0 {
		p.MinSpeed = def.MinSpeed
	}
	if p.Attempts <= 0 {
		p.Attempts = def.Attempts
	}
	p.Pause = max(0, p.Pause)
	return p
}
