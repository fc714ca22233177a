package main

import (
	"errors"
	"flag"
	"fmt"
	"regexp"
	"strings"

	"github.com/larder-project/larder/integration/internal/parts"
)

// defaultImage is the size of the 8-layer image, in MiB.
const defaultImage = 1024

// options are the flags.
type options struct {
	rows   *regexp.Regexp
	rounds int
	report string
	// document is a Markdown file with marks, into which the table goes.
	document string
	list     bool
	// imageSize is that of the 8-layer image.
	imageSize int64
	full      bool
	// beside is the folder of another build of larder; "": there is none.
	beside parts.Bin
	// blobs is how many the store of the start-up experiment has.
	blobs int
}

func parseOptions(args []string) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	rows := flags.String("rows", "", "run the experiments whose names match this regular expression; all if empty")
	flags.IntVar(&o.rounds, "rounds", 5, "how often each contestant is measured")
	flags.StringVar(&o.report, "report", "", "folder that the table, the JSON and the plot are written to; the table also goes to standard output")
	flags.StringVar(&o.document, "document", "", "Markdown file between whose marks the table goes, as docs/performance.md; JSON and plot go beside it")
	flags.BoolVar(&o.list, "list", false, "list the experiments")
	flags.BoolVar(&o.full, "full", false, "full sizes where the default is smaller: 1 GiB on slow lines, 1,000,000 blobs")
	flags.IntVar(&o.blobs, "blobs", 0, "blobs in the store that is started; 100,000 if 0, or 1,000,000 with -full")
	beside := flags.String("beside", "", "folder with the program of another build of larder, which is measured beside this one where something is pulled")
	mib := flags.Int64("image", defaultImage, "MiB of the image with 8 layers")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.imageSize = *mib << 20
	if o.beside = parts.Bin(*beside); o.beside != "" {
		if err := o.beside.Need(larder); err != nil {
			return o, fmt.Errorf("-beside: %w", err)
		}
	}
	var err error
	if o.rows, err = regexp.Compile(*rows); err != nil {
		return o, fmt.Errorf("-rows: %w", err)
	}
	if flags.NArg() > 0 || o.rounds < 1 || *mib < 32 {
		return o, errors.New("usage: bench [flags]; at least one round, and an image of at least 32 MiB")
	}
	return o, nil
}

// tinyBlobs is how many blobs the largest store of tiny ones has.
func (o options) tinyBlobs() int {
	switch {
	case o.blobs > 0:
		return o.blobs
	case o.full:
		return 1_000_000
	}
	return 100_000
}

// command is how to measure the same again; where the report goes is left out.
func (o options) command() string {
	text := "make bench"
	if rows := o.rows.String(); rows != "" {
		text += fmt.Sprintf(" ROWS='%s'", rows)
	}
	text += fmt.Sprintf(" ROUNDS=%d", o.rounds)
	var flags []string
	if o.full {
		flags = append(flags, "-full")
	}
	if o.imageSize != defaultImage<<20 {
		flags = append(flags, fmt.Sprintf("-image=%d", o.imageSize>>20))
	}
	if o.blobs != 0 {
		flags = append(flags, fmt.Sprintf("-blobs=%d", o.blobs))
	}
	if len(flags) > 0 {
		text += fmt.Sprintf(" BENCHFLAGS='%s'", strings.Join(flags, " "))
	}
	return text
}
