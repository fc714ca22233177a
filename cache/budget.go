package cache

import (
	"math"
)

// Amount is a number of bytes, or a share of the file system in percent if that
// is not 0. The zero Amount is no bound.
type Amount struct {
	Bytes   int64
	Percent float64
}

func (a Amount) isZero() bool { return a.Bytes <= 0 && a.Percent <= 0 }

// Of is the amount in bytes on a file system of this size.
func (a Amount) Of(total int64) int64 {
	if a.Percent > 0 {
		return int64(float64(total) * a.Percent / 100)
	}
	return a.Bytes
}

// Budget says how much room a store may take on a file system that others use,
// too. The zero Budget is no bound.
type Budget struct {
	// MaxSize bounds what the store takes.
	MaxSize Amount
	// MinFree is what is to stay free for others, whoever has filled the rest.
	MinFree Amount
	// High and Low are marks, as shares (0 to 1) of what the bounds allow:
	// beyond High the Keeper evicts down to Low. 0 means DefaultHigh and
	// DefaultLow.
	High, Low float64
}

// The marks of a Budget that sets none.
const (
	DefaultHigh = 0.95
	DefaultLow  = 0.85
)

func (b Budget) isZero() bool { return b.MaxSize.isZero() && b.MinFree.isZero() }

func (b Budget) withDefaults() Budget {
	if b.High <= 0 {
		b.High = DefaultHigh
	}
	if b.Low <= 0 {
		b.Low = min(DefaultLow, b.High)
	}
	return b
}

// unbounded is the allowance without a bound.
const unbounded = math.MaxInt64

// The bounds by their names in the configuration.
const (
	boundSize = "max_size"
	boundFree = "min_free"
	boundDisk = "the file system"
)

// allowance is how much the store may take in all, and which bound says so.
// onDisk is what it takes now, without what is promised to fills; free is what the
// file system has left. It is never negative.
func (b Budget) allowance(onDisk int64, free Free) (bytes int64, bound string) {
	if b.isZero() {
		return unbounded, ""
	}
	// Whatever the budget, what is not there cannot be had.
	bytes, bound = onDisk+free.Bytes, boundDisk
	if !b.MinFree.isZero() {
		bytes, bound = bytes-b.MinFree.Of(free.Total), boundFree
	}
	if !b.MaxSize.isZero() {
		if most := b.MaxSize.Of(free.Total); most < bytes {
			bytes, bound = most, boundSize
		}
	}
	return max(0, bytes), bound
}

// share is a part of an allowance.
func share(allowance int64, part float64) int64 {
	if allowance == unbounded {
		return unbounded
	}
	return int64(float64(allowance) * part)
}
