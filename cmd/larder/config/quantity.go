package config

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Duration is a time span, never negative; in text as time.ParseDuration
// reads it.
type Duration time.Duration

// UnmarshalText parses text such as 1h30m. It returns
// errdefs.ErrInvalidArgument for anything else and for negative spans.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return invalid(`%q: want a duration such as "30s" or "24h"`, text)
	}
	if v < 0 {
		return invalid("%q: must not be negative", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText returns the shortest text that UnmarshalText reads back.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String returns the span without the zero units at its end: 24h, not 24h0m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Size is a number of bytes, never negative; in text with a unit, KiB for
// 1024 and kB for 1000 bytes.
type Size int64

// UnmarshalText parses text such as 20GiB. It returns
// errdefs.ErrInvalidArgument for anything else.
func (s *Size) UnmarshalText(text []byte) error {
	v, err := humanize.ParseBytes(string(text))
	if err == nil && v > math.MaxInt64 {
		return invalid("%q: is too large", text)
	}
	if err != nil {
		return invalid(`%q: want a size such as "64KiB" or "20GiB"`, text)
	}
	*s = Size(v)
	return nil
}

// MarshalText returns text that UnmarshalText reads back without loss.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String returns the size in the largest binary unit that loses nothing.
func (s Size) String() string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i, n := 0, int64(s)
	for ; i < len(units)-1 && n != 0 && n%1024 == 0; i++ {
		n /= 1024
	}
	return strconv.FormatInt(n, 10) + units[i]
}
