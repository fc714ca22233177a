package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cmd/larder/admin"
)

// changeCommand makes a verb that does one thing to each of its references
// and goes on after a failure.
func (o *options) changeCommand(cmd *cobra.Command, do func(ctx context.Context, c *admin.Client, ref string) (answer any, line string, err error)) *cobra.Command {
	var asJSON bool
	cmd.Args = cobra.MinimumNArgs(1)
	cmd.ValidArgsFunction = o.completeReferences
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, refs []string) error {
		client, err := o.client()
		if err != nil {
			return err
		}
		var errs []error
		for _, ref := range refs {
			answer, line, err := do(cmd.Context(), client, ref)
			switch {
			case err != nil:
				errs = append(errs, err)
			case asJSON:
				errs = append(errs, o.printJSON(answer))
			default:
				fmt.Fprintln(o.stdout, line)
			}
		}
		return errors.Join(errs...)
	}
	return cmd
}

func newRemoveCommand(o *options) *cobra.Command {
	return o.changeCommand(&cobra.Command{
		Use:     "rm REF…",
		Aliases: []string{"remove"},
		Short:   "Remove images and the blobs that no other image needs",
		Long: `Removes each image from the store, with its signatures and other companions. One
that is pinned is refused; the error names each pin and how to take it away. What
another image or a pin needs stays.`,
		Example: `  larder rm docker.io/library/nginx:1.28`,
	}, func(ctx context.Context, c *admin.Client, ref string) (any, string, error) {
		res, err := c.Remove(ctx, ref)
		return res, fmt.Sprintf("%s: removed %d blobs, %s", res.Ref, res.Blobs, humanize.IBytes(uint64(res.Bytes))), err
	})
}

func newRefreshCommand(o *options) *cobra.Command {
	return o.changeCommand(&cobra.Command{
		Use:   "refresh REF…",
		Short: "Check tags upstream now, whatever their window",
		Long: `Asks upstream what each tag points to, and fetches the manifest if it moved. A
failure is reported; what is stored stays. Digests cannot change and are refused.`,
		Example: `  larder refresh docker.io/library/nginx:latest
  larder ls -q | grep -v @ | xargs -r larder refresh`,
	}, func(ctx context.Context, c *admin.Client, ref string) (any, string, error) {
		res, err := c.Refresh(ctx, ref)
		line := fmt.Sprintf("%s: unchanged, %s", res.Ref, res.Digest)
		switch {
		case res.Moved:
			line = fmt.Sprintf("%s: moved from %s to %s", res.Ref, res.Before, res.Digest)
		case res.Before == "":
			line = fmt.Sprintf("%s: now known, %s", res.Ref, res.Digest)
		}
		return res, line, err
	})
}

// completeReferences completes stored references in a shell.
func (o *options) completeReferences(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return o.complete(func(ctx context.Context, c *admin.Client) (names []string, err error) {
		images, err := c.Images(ctx)
		for _, img := range images {
			names = append(names, img.Name)
		}
		return names, err
	})
}

// complete asks the daemon briefly what an argument may be, and stays silent if
// there is none.
func (o *options) complete(ask func(context.Context, *admin.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	client, err := o.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	names, err := ask(ctx, client)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
