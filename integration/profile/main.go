// The profile command profiles a larder that serves what it has stored, under load,
// over loopback and on this machine:
//
//	make profile ROW=head
//
// How it compares with others says integration/bench, whose load this is. It needs
// no root. It leaves nothing running, and no files but the profiles.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/larder-project/larder/integration/bench/load"
	"github.com/larder-project/larder/integration/internal/parts"
)

// task is what the command line asks for.
type task struct {
	rows    []string
	clients []int
	length  time.Duration
	out     string // folder for profiles
	report  io.Writer
	log     string // larder's log.level
}

func main() {
	if code, ok := load.Child(); ok {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	t, err := parseTask(os.Args[1:])
	if err == nil {
		err = run(ctx, t)
	}
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "profile:", err)
		os.Exit(1)
	}
}

func parseTask(args []string) (task, error) {
	t := task{report: os.Stdout}
	var names, clients string
	flags := flag.NewFlagSet("profile", flag.ContinueOnError)
	flags.StringVar(&names, "rows", "head", "what is asked for, separated by commas: "+strings.Join(rowNames(), ", "))
	flags.StringVar(&clients, "clients", "32", "how many ask at a time, separated by commas")
	flags.DurationVar(&t.length, "length", 5*time.Second, "how long each measurement takes")
	flags.StringVar(&t.out, "out", "", "folder for profiles")
	flags.StringVar(&t.log, "log", "info", "larder's log.level")
	if err := flags.Parse(args); err != nil {
		return t, err
	}
	t.rows = strings.Split(names, ",")
	for text := range strings.SplitSeq(clients, ",") {
		var n int
		if _, err := fmt.Sscan(text, &n); err != nil || n < 1 {
			return t, fmt.Errorf("-clients %q: want numbers", clients)
		}
		t.clients = append(t.clients, n)
	}
	if t.out == "" {
		return t, errors.New("want -out")
	}
	return t, nil
}

// run starts the parts, does the task, and ends the parts whatever happened.
func run(ctx context.Context, t task) (err error) {
	rows, err := rowsOf(t.rows)
	if err != nil {
		return err
	}
	bin, err := parts.FindBin()
	if err != nil {
		return err
	}
	if err := bin.Need("larder"); err != nil {
		return err
	}
	s, err := newStage(ctx, bin, t.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return profile(ctx, s, rows, t)
}
