package config

import (
	"strconv"
	"strings"
)

// off is how an Amount that is no bound is written.
const off = "off"

// Amount is a number of bytes, or a share of the store's file system in percent;
// the zero Amount is none, in text "off".
type Amount struct {
	Bytes   Size
	Percent Percent
}

// UnmarshalText parses text such as 20GiB, 30% or off. It returns
// errdefs.ErrInvalidArgument for anything else.
func (a *Amount) UnmarshalText(text []byte) error {
	switch s := string(text); {
	case s == off:
		*a = Amount{}
		return nil
	case strings.HasSuffix(s, "%"):
		*a = Amount{}
		if err := a.Percent.UnmarshalText(text); err != nil || a.Percent > 100 {
			return invalid(`%q: want a share from "0%%" to "100%%"`, text)
		}
		return nil
	}
	var size Size
	if err := size.UnmarshalText(text); err != nil {
		return invalid(`%q: want a size such as "20GiB", a share of the file system such as "30%%", or "off"`, text)
	}
	*a = Amount{Bytes: size}
	return nil
}

// MarshalText returns text that UnmarshalText reads back without loss.
func (a Amount) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// String returns the amount as it is written in a configuration.
func (a Amount) String() string {
	switch {
	case a.Percent > 0:
		return a.Percent.String()
	case a.Bytes > 0:
		return a.Bytes.String()
	}
	return off
}

// Percent is a share in percent, from 0; in text with its sign.
type Percent float64

// UnmarshalText parses text such as 30%. It returns errdefs.ErrInvalidArgument
// for anything else.
func (p *Percent) UnmarshalText(text []byte) error {
	number, ok := strings.CutSuffix(string(text), "%")
	v, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(v >= 0 && v <= 10_000) {
		return invalid(`%q: want a share such as "70%%"`, text)
	}
	*p = Percent(v)
	return nil
}

// MarshalText returns text that UnmarshalText reads back without loss.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// String returns the share with its sign.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }
