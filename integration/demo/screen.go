package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"
)

// screen prints the demo's lines; in colour on a terminal.
type screen struct {
	w      io.Writer
	colour bool
	step   int
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" }

func (s *screen) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *screen) title(text string) { fmt.Fprintf(s.w, "\n%s\n", s.paint("1", text)) }

// heading begins the next numbered step.
func (s *screen) heading(text string) {
	s.step++
	fmt.Fprintf(s.w, "\n%s %s\n", s.paint("36;1", fmt.Sprint(s.step)), s.paint("1", text))
}

func (s *screen) line(format string, args ...any) {
	fmt.Fprintf(s.w, "  "+format+"\n", args...)
}

// pulled reports one pull that succeeded.
func (s *screen) pulled(p pull) {
	s.line("%s %s", s.paint("32", "✓"), p.ref)
	s.line("  %s", s.paint("2", fmt.Sprintf("%v · from larder %s in %s · from upstream %s in %s",
		p.took.Round(10*time.Millisecond), size(p.node.Bytes), count(p.node.Requests),
		size(p.wire.Bytes), count(p.wire.Requests))))
}

// table is the closing summary, a line for each pull.
func (s *screen) table(pulls []pull) {
	fmt.Fprintln(s.w)
	w := tabwriter.NewWriter(s.w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "upstream\tname\tupstream requests\tupstream bytes\tlarder bytes\thits\ttime\t")
	for _, p := range pulls {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%d/%d\t%v\t\n", p.when, registryHost(p.ref), p.wire.Requests, size(p.wire.Bytes),
			size(p.node.Bytes), p.hits, p.node.Requests, p.took.Round(10*time.Millisecond))
	}
	_ = w.Flush() // the writer below is a terminal or a pipe: nobody is left to tell
}

// registryHost is a reference's first part, shortened in the middle.
func registryHost(ref string) string {
	host, _, _ := strings.Cut(ref, "/")
	if len(host) > 24 {
		return host[:8] + "…" + host[len(host)-13:]
	}
	return host
}

func size(n int64) string {
	if n == 0 {
		return "0 B"
	}
	return humanize.IBytes(uint64(n))
}

func count(n int) string {
	if n == 1 {
		return "1 request"
	}
	return fmt.Sprintf("%d requests", n)
}
