package main

import (
	"fmt"
	"io"
	"os"
	"strings"

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
	wire := "upstream not asked"
	if p.wire.Requests > 0 {
		wire = fmt.Sprintf("upstream sent %s in %d requests", size(p.wire.Bytes), p.wire.Requests)
	}
	s.line("  %s", s.paint("2", fmt.Sprintf("%s; larder sent %s, %d of %d answers from its store",
		wire, size(p.node.Bytes), p.hits, p.node.Requests)))
}

// table is the closing summary, a line for each pull.
func (s *screen) table(pulls []pull) {
	const row = "  %-9s  %-24s  %8s  %9s  %8s  %6s  %6s"
	head := s.paint("1", row) + "\n"
	fmt.Fprintf(s.w, "\n"+head, "upstream", "name", "upstream", "upstream", "larder", "larder", "time")
	fmt.Fprintf(s.w, head, "", "", "requests", "bytes", "bytes", "hits", "")
	for _, p := range pulls {
		fmt.Fprintf(s.w, row+"\n", p.when, registryHost(p.ref), fmt.Sprint(p.wire.Requests), size(p.wire.Bytes),
			size(p.node.Bytes), fmt.Sprintf("%d/%d", p.hits, p.node.Requests), fmt.Sprintf("%.1fs", p.took.Seconds()))
	}
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
