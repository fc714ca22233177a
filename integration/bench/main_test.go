package main

import (
	"io"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/larder-project/larder/integration/bench/load"
)

func TestMain(m *testing.M) {
	for _, child := range []func() (int, bool){load.Child, beFileServer} {
		if code, ok := child(); ok {
			os.Exit(code)
		}
	}
	goleak.VerifyTestMain(m)
}

func TestOptions(t *testing.T) {
	t.Parallel()
	o, err := parseOptions([]string{"-rows", "warm|cold", "-rounds", "3", "-image", "64"})
	if err != nil || o.rounds != 3 || o.imageSize != 64<<20 || !o.rows.MatchString("cold pull") || o.rows.MatchString("memory") {
		t.Errorf("got %+v, %v", o, err)
	}
	if got, want := o.command(), "make bench ROWS='warm|cold' ROUNDS=3 BENCHFLAGS='-image=64'"; got != want {
		t.Errorf("command: got %s, want %s", got, want)
	}
	for _, args := range [][]string{{"-rows", "("}, {"-rounds", "0"}, {"-image", "1"}, {"warm"}} {
		if _, err := parseOptions(args); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
	if err := run(t.Context(), []string{"-list"}, io.Discard); err != nil {
		t.Errorf("-list: %v", err)
	}
}
