package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cache"
)

func newHistoryCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "history REF",
		Short: "Show which digests a tag had",
		Long: `Shows what a tag pointed to, from when until when, and why not any more: moved (it
pointed elsewhere upstream), removed (larder rm), expired (by a rule of a lifecycle
policy) or evicted (for space). It knows tags that are not stored any more, too.

Times are those of larder on this node: when it learnt of a change, and not when
that happened upstream. The newest hundred changes of a tag are kept. To have an
image that a tag had, pull it by its digest.`,
		Example: `  larder history docker.io/library/nginx:latest
  larder history --json nginx:latest | jq -r '.entries[-2].digest'`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeReferences,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			h, err := client.History(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return o.printJSON(h)
			}
			return printHistory(o.stdout, h)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printHistory(w io.Writer, h cache.History) error {
	fmt.Fprintf(w, "%s\n\n", h.Name)
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "FROM\tUNTIL\tDIGEST\tENDED")
	for _, e := range h.Entries {
		until := "now"
		if !e.Until.IsZero() {
			until = moment(e.Until)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", moment(e.From), until, e.Digest, endedText(e.Ending))
	}
	return tw.Flush()
}

func moment(t time.Time) string { return t.Local().Format(time.DateTime) }

func endedText(e cache.Ending) string {
	text := orDash(string(e.Why))
	if e.Detail != "" {
		text += ": " + printable(e.Detail)
	}
	return text
}
