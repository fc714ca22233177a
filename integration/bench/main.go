package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/larder-project/larder/integration/bench/figures"
	"github.com/larder-project/larder/integration/bench/load"
	"github.com/larder-project/larder/integration/internal/parts"
)

func main() {
	for _, child := range []func() (int, bool){load.Child, beFileServer} {
		if code, ok := child(); ok {
			os.Exit(code)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// experiments in the order of their worth.
func experiments() []experiment {
	return slices.Concat([]experiment{warmBlob(), manifests()}, coldPulls(), []experiment{warmPull(), coldBlob(), firstByte(), fillDisk(), memoryUse(), startUp(), deadUpstream(), growthBlobs(), growthTags(), growthClients()})
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if o.list {
		for _, e := range experiments() {
			fmt.Fprintf(out, "%s\n    %s\n", e.name, e.about)
		}
		return nil
	}
	s, err := newStage(ctx, o, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	report := &figures.Report{
		Machine: machine(s.dir), Version: version(ctx, s.bin), Date: time.Now().UTC().Format(time.DateOnly),
		Command: o.command(), Rounds: o.rounds,
	}
	for _, e := range experiments() {
		if ctx.Err() == nil && o.rows.MatchString(e.name) {
			report.Experiments = append(report.Experiments, s.perform(ctx, e))
		}
	}
	report.Finish()
	if err := write(report, o, out); err != nil {
		return err
	}
	if failed := report.Failed(); len(failed) > 0 {
		return fmt.Errorf("these experiments failed: %s", strings.Join(failed, ", "))
	}
	return context.Cause(ctx)
}

// newStage finds the programs and makes the folder of this run.
func newStage(ctx context.Context, o options, out io.Writer) (*stage, error) {
	bin, err := parts.FindBin()
	if err != nil {
		return nil, err
	}
	if err := bin.Need(larder, "registry"); err != nil {
		return nil, err
	}
	peers, err := fetchPeers(ctx, bin.Path("debian"))
	if err != nil {
		return nil, err
	}
	dir, err := parts.TempDir()
	if err != nil {
		return nil, err
	}
	images, err := newImages(filepath.Join(dir, "images"))
	return &stage{bin: bin, peers: peers, dir: dir, images: images, opts: o, out: out}, err
}

// version is what larder says of itself.
func version(ctx context.Context, bin parts.Bin) string {
	out, err := commandOutput(ctx, bin.Path(larder), "version")
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(out, "\n")
	return strings.TrimPrefix(line, "larder ")
}
