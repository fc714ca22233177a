package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes"
)

func newListCommand(o *options) *cobra.Command {
	var asJSON, quiet, all bool
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the stored images",
		Long: `Lists tags, and digests that were asked for by name. STATE is fresh inside the
tag's window, stale outside it, digest for what cannot change, and absent for what
is pinned but not stored. A size that says "partial" has no platform whole yet; an
image that was pulled for one platform of several lists that one.

Cosign's tags of stored images (sha256-….sig and so on) are listed with --all only;
larder show lists them with their image.`,
		Example: `  larder ls
  larder ls --json | jq '.[].name'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			images, err := client.Images(cmd.Context())
			if err != nil {
				return err
			}
			if !all {
				images = slices.DeleteFunc(images, isCompanion)
			}
			switch {
			case asJSON:
				return o.printJSON(images)
			case quiet:
				for _, img := range images {
					fmt.Fprintln(o.stdout, img.Name)
				}
				return nil
			}
			return printImages(o.stdout, images)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "list cosign's tags of stored images, too")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print references only")
	return cmd
}

// isCompanion reports whether an image is but a part of another one. What a
// person has pinned by its name is not.
func isCompanion(img remotes.Image) bool {
	return img.Subject != "" && !slices.ContainsFunc(img.Pins, func(p cache.Pin) bool { return p.Name == img.Name })
}

func printImages(w io.Writer, images []remotes.Image) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "REFERENCE\tDIGEST\tPLATFORMS\tSIZE\tSTATE\tCHECKED\tUSED\tPINNED")
	for _, img := range images {
		name, _, _ := strings.Cut(img.Name, "@")
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, shortDigest(img.Descriptor.Digest),
			orDash(strings.Join(img.Platforms, ",")), sizeOf(img), img.State, checkedOf(img), usedOf(img), pinnedOf(img))
	}
	return tw.Flush()
}

// shortDigest is enough of a digest to tell it from others; "-" for none.
func shortDigest(dgst digest.Digest) string {
	_, hex, _ := strings.Cut(dgst.String(), ":")
	return orDash(hex[:min(12, len(hex))])
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func sizeOf(img remotes.Image) string {
	if img.Descriptor.Digest == "" {
		return "-"
	}
	size := humanize.IBytes(uint64(img.Size))
	if len(img.Platforms) == 0 {
		size += " partial"
	}
	return size
}

// checkedOf says when an upstream last confirmed a tag.
func checkedOf(img remotes.Image) string {
	if img.Tag == nil {
		return "-"
	}
	return ago(img.Tag.Validated)
}

// usedOf says when a tag was last served from the store.
func usedOf(img remotes.Image) string {
	if img.Tag == nil || img.Tag.Used.IsZero() {
		return "-"
	}
	return ago(img.Tag.Used)
}

func ago(t time.Time) string {
	if time.Since(t) < time.Second {
		return "now"
	}
	return humanize.Time(t)
}

// pinnedOf names the owners of an image's pins, and why they want it kept.
func pinnedOf(img remotes.Image) string {
	var all []string
	for _, p := range img.Pins {
		text := p.Owner
		if p.Reason != "" {
			text += ": " + printable(p.Reason)
		}
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return orDash(strings.Join(all, ", "))
}
