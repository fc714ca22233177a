package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/cmd/larder/config"
)

func newCollectCommand(o *options) *cobra.Command {
	var dryRun, asJSON bool
	var to string
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Make room in the store now",
		Long: `Evicts what was used least and is cheapest to fetch again, until the store takes no
more than the low mark of its budget (space.low), or SIZE. What is pinned, in use or
being pulled stays, whatever SIZE is. The daemon does this by itself when the store
is beyond the high mark; this does it before.

Prints what goes, how much that frees, and why it was chosen.`,
		Example: `  larder gc --dry-run           # what would go
  larder gc --to 10GiB
  larder gc --to 0B             # all that may go`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := admin.CollectRequest{To: -1, DryRun: dryRun}
			if to != "" {
				var size config.Size
				if err := size.UnmarshalText([]byte(to)); err != nil {
					return &usageError{fmt.Errorf("--to %w", err)}
				}
				req.To = int64(size)
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			return o.collect(cmd, client, req, asJSON)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only print what would go")
	cmd.Flags().StringVar(&to, "to", "", "what the store may take afterwards (default: the low mark)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// collected is what gc prints as JSON.
type collected struct {
	Evicted []cache.Eviction `json:"evicted"`
	admin.CollectResult
}

func (o *options) collect(cmd *cobra.Command, client *admin.Client, req admin.CollectRequest, asJSON bool) error {
	all := collected{Evicted: []cache.Eviction{}}
	res, err := client.Collect(cmd.Context(), req, func(ev cache.Eviction) {
		if asJSON {
			all.Evicted = append(all.Evicted, ev)
			return
		}
		fmt.Fprintf(o.stdout, "%s  %s, %s: %s\n", evictedName(ev), humanize.IBytes(uint64(ev.Bytes)), english.Plural(ev.Blobs, "blob", ""), ev.Why)
	})
	if err != nil {
		return err
	}
	all.CollectResult = res
	if asJSON {
		return o.printJSON(all)
	}
	verb := "evicted"
	if res.DryRun {
		verb = "would evict"
	}
	fmt.Fprintf(o.stdout, "%s %s, %s, %s; the store takes %s\n", verb, english.Plural(res.Images, "image", ""), english.Plural(res.Blobs, "blob", ""),
		humanize.IBytes(uint64(res.Bytes)), spaceOf(res.Space))
	if req.To < 0 && res.Space.Allowance < 0 {
		fmt.Fprintln(o.stdout, "nothing bounds the store (space.max_size and space.min_free are off): name a size with --to")
	}
	if res.Missing > 0 {
		return errors.New(missingText(res.Collected))
	}
	return nil
}

// evictedName is what an eviction is known by.
func evictedName(ev cache.Eviction) string {
	if len(ev.Names) == 0 {
		return "(no image)"
	}
	return strings.Join(ev.Names, " ")
}

// missingText says why not as much went as should.
func missingText(c cache.Collected) string {
	text := fmt.Sprintf("%s more should go, but nothing else may", humanize.IBytes(uint64(c.Missing)))
	if stays := c.StaysText(); stays != "" {
		text += ": " + stays
	}
	return text
}

// spaceOf is what a store takes of what it may take.
func spaceOf(u cache.Usage) string {
	text := humanize.IBytes(uint64(u.Taken))
	if u.Allowance >= 0 {
		text += fmt.Sprintf(" of %s (%s)", humanize.IBytes(uint64(u.Allowance)), u.Bound)
	}
	return text
}

func newWhyEvictedCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "why-evicted REF|DIGEST",
		Short: "Tell when and why something was evicted",
		Long: `Tells of an image, by its reference, or of a blob, by its digest, whether it is
stored, and when and why it was evicted last. The newest 10,000 evictions are
remembered. What a lifecycle policy removed is not evicted: see larder history.`,
		Example: `  larder why-evicted docker.io/library/nginx:1.28
  larder why-evicted sha256:…`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeReferences,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			fate, err := client.Fate(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return o.printJSON(fate)
			}
			_, err = fmt.Fprintln(o.stdout, fateText(fate))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// fateText says what became of something.
func fateText(f admin.Fate) string {
	what := f.Name
	if what == "" {
		what = f.Digest.String()
	}
	switch {
	case f.Stored && f.Evicted == nil:
		return what + " is stored, and no eviction of it is remembered"
	case f.Stored:
		return fmt.Sprintf("%s is stored; it was evicted before, %s", what, graveText(*f.Evicted))
	case f.Evicted != nil:
		return fmt.Sprintf("%s was evicted %s", what, graveText(*f.Evicted))
	}
	return what + " is not stored, and no eviction of it is remembered: it was never there, was removed by hand or by a lifecycle policy (larder history tells of a tag), or that is long ago"
}

func graveText(gr cache.Grave) string {
	text := fmt.Sprintf("%s (%s), %s in %s: %s", ago(gr.At), gr.At.Local().Format("2006-01-02 15:04:05"), humanize.IBytes(uint64(gr.Bytes)), english.Plural(gr.Count, "blob", ""), gr.Why)
	if len(gr.Names) > 0 {
		text += "; with " + strings.Join(gr.Names, " ")
	}
	return text
}
