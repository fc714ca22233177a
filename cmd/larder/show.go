package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
)

func newShowCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show REF",
		Short: "Show one stored image with its blobs",
		Example: `  larder show docker.io/library/nginx:1.29
  larder show --json nginx@sha256:…`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeReferences,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			img, err := client.Image(cmd.Context(), args[0])
			if errdefs.IsNotFound(err) {
				if fate, ferr := client.Fate(cmd.Context(), args[0]); ferr == nil && fate.Evicted != nil {
					return fmt.Errorf("%s: %w", fateText(fate), errdefs.ErrNotFound)
				}
			}
			if err != nil {
				return err
			}
			if asJSON {
				return o.printJSON(img)
			}
			return printImage(o.stdout, img)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printImage(w io.Writer, img remotes.ImageDetail) error {
	var b strings.Builder
	row := func(name, value string) { fmt.Fprintf(&b, "%-11s %s\n", name, value) }
	row("reference", img.Name)
	row("digest", img.Descriptor.Digest.String())
	row("type", img.Descriptor.MediaType)
	row("platforms", orDash(strings.Join(img.Platforms, ", ")))
	row("stored", fmt.Sprintf("%s, %d blobs missing", humanize.IBytes(uint64(img.Size)), img.Missing))
	row("state", img.State)
	row("source", orDash(img.Source))
	if a := img.AnsweredBy; a != nil {
		row("answered by", fmt.Sprintf("%s, %s", a.Upstream, ago(a.At)))
	}
	if t := img.Tag; t != nil {
		row("checked", fmt.Sprintf("%s, window %s", ago(t.Validated), windowText(img.Window)))
		row("moved", ago(t.Moved))
		row("used", usedOf(img.Image))
		switch {
		case t.Failures > 0:
			row("failing", fmt.Sprintf("%d in a row, next %s: %s", t.Failures, nextCheck(t.NextCheck), t.LastError))
		case t.LastError != "": // not made, to spare what the registry allows
			row("put off", fmt.Sprintf("next check %s: %s", nextCheck(t.NextCheck), t.LastError))
		}
	}
	pinRows(row, img.Image)
	if s := referrersOf(img.Companions); s != "" {
		row("referrers", s)
	}
	if s := signaturesOf(img.Companions); s != "" {
		row("cosign", s)
	}
	b.WriteString("\n")
	printTree(&b, img.Tree, "")
	_, err := io.WriteString(w, b.String())
	return err
}

// pinRows says by what and whom an image is pinned.
func pinRows(row func(name, value string), img remotes.Image) {
	if len(img.Pins) == 0 {
		row("pinned", "-")
	}
	for _, p := range img.Pins {
		text := "by " + p.Owner
		if p.Name != img.Name {
			text += " as " + p.Name
		}
		if !p.Created.IsZero() {
			text += ", " + ago(p.Created)
		}
		if p.Reason != "" {
			text += ": " + printable(p.Reason)
		}
		row("pinned", text)
	}
}

// windowText is a window as the configuration has it.
func windowText(s string) string {
	if d, err := time.ParseDuration(s); err == nil {
		return config.Duration(d).String()
	}
	return s
}

// referrersOf counts referrers and names their types, "" if there are none.
func referrersOf(companions []remotes.Companion) string {
	var types []string
	n, missing := 0, 0
	for _, c := range companions {
		if c.Tag != "" {
			continue
		}
		n++
		if !c.Tree.Stored {
			missing++
		}
		if t := orDash(printable(c.Tree.ArtifactType)); !slices.Contains(types, t) {
			types = append(types, t)
		}
	}
	if n == 0 {
		return ""
	}
	slices.Sort(types)
	text := fmt.Sprintf("%d: %s", n, strings.Join(types, ", "))
	if missing > 0 {
		text += fmt.Sprintf(" (%d not stored)", missing)
	}
	return text
}

// printable makes upstream's words fit for a terminal: no control characters,
// and not too many.
func printable(s string) string {
	const most = 100
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), most)], ""))
}

// signaturesOf names cosign's tags, "" if there are none.
func signaturesOf(companions []remotes.Companion) string {
	var tags []string
	for _, c := range companions {
		if c.Tag != "" {
			tags = append(tags, c.Tag)
		}
	}
	return strings.Join(tags, ", ")
}

// nextCheck says when a tag is checked again: not before a pull asks for it.
func nextCheck(t time.Time) string {
	if time.Until(t) <= 0 {
		return "at the next pull"
	}
	return humanize.Time(t)
}

// printTree draws a manifest with what it names, what is not stored in
// parentheses.
func printTree(b *strings.Builder, n remotes.Node, indent string) {
	label := shortType(n.MediaType)
	if n.Platform != nil {
		label += " " + platforms.FormatAll(*n.Platform)
	}
	line := fmt.Sprintf("%s %s %s", shortDigest(n.Digest), label, humanize.IBytes(uint64(max(n.Size, 0))))
	if !n.Stored {
		line = "(" + line + ", not stored)"
	}
	fmt.Fprintf(b, "%s%s\n", indent, line)
	for _, c := range n.Children {
		printTree(b, c, indent+"  ")
	}
}

// shortType names the common media types.
func shortType(mediaType string) string {
	switch {
	case strings.Contains(mediaType, "index") || strings.Contains(mediaType, "manifest.list"):
		return "index"
	case strings.Contains(mediaType, "manifest"):
		return "manifest"
	case strings.Contains(mediaType, "config") || strings.Contains(mediaType, "container.image"):
		return "config"
	case strings.Contains(mediaType, "layer") || strings.Contains(mediaType, "rootfs"):
		return "layer"
	}
	return orDash(mediaType)
}
