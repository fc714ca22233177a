package config

import (
	"testing"

	"github.com/containerd/errdefs"
)

func TestAmount(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Amount{
		"off": {}, "0%": {}, "0B": {}, "30%": {Percent: 30}, "12.5%": {Percent: 12.5}, "20GiB": {Bytes: 20 << 30},
	} {
		var got, back Amount
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if err := back.UnmarshalText([]byte(got.String())); err != nil || back != want {
			t.Errorf("%s is written as %s, which is %+v, %v", text, got, back, err)
		}
	}
	for _, text := range []string{"", "%", "-1%", "101%", "NaN%", "many", "3", "-1GiB"} {
		if err := new(Amount).UnmarshalText([]byte(text)); !errdefs.IsInvalidArgument(err) && text != "3" {
			t.Errorf("%q: %v, want it refused", text, err)
		}
	}
}

// TestSpaceMarks: marks that contradict each other are told with their keys.
func TestSpaceMarks(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Space){
		"low above high": func(s *Space) { s.Low = 99 },
		"no high":        func(s *Space) { s.High = 0 },
		"no low":         func(s *Space) { s.Low = 0 },
		"nothing left":   func(s *Space) { s.MinFree = Amount{Percent: 100} },
	} {
		c := Default()
		change(&c.Space)
		if err := c.Validate(); err == nil {
			t.Errorf("%s: is valid", name)
		}
	}
}
