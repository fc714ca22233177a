package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/remotes"
)

func newPinCommand(o *options) *cobra.Command {
	var owner, reason string
	cmd := o.changeCommand(&cobra.Command{
		Use:   "pin PIN…",
		Short: "Keep images from being removed",
		Long: `Pins images, with all that is stored of them: platforms, signatures and other
companions. A PIN is one of

  a reference       nginx:1.29, by tag, wherever the tag moves; or by digest
  a digest alone    sha256:…, that manifest or layer in whatever repository
  a pattern         'registry.k8s.io/*', for references as larder ls writes them;
                    * stands for any characters

Nothing of it need be stored yet; larder pins tells what is absent. One PIN may have
several owners, such as a person and a program: each takes only its own away.`,
		Example: `  larder pin registry.k8s.io/pause:3.10 --reason "sandbox image"
  larder pin 'docker.io/library/*-lts' --owner base-images`,
	}, func(ctx context.Context, c *admin.Client, pin string) (any, string, error) {
		s, err := c.Pin(ctx, admin.PinRequest{Ref: pin, Owner: owner, Reason: reason})
		if err == nil && remotes.PinsEverything(s.Name) {
			fmt.Fprintf(o.stderr, "warning: %s is all that is stored and will be: nothing can be removed any more; larder unpin '%s' takes it back\n", s.Name, s.Name)
		}
		return s, s.Name + ": pinned" + heldBy(s), err
	})
	cmd.Flags().StringVar(&owner, "owner", cache.PinOwnerCLI, "whose pin it is")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who come later")
	return cmd
}

// heldBy says what a pin holds, where that is not plain.
func heldBy(s remotes.PinStatus) string {
	switch {
	case s.Absent:
		return ", not stored yet"
	case s.IsPattern() && s.Images == 0:
		return ", holds for no stored image yet: patterns are for references as larder ls writes them"
	case s.IsPattern():
		return fmt.Sprintf(", holds for %d stored images", s.Images)
	}
	return ""
}

func newUnpinCommand(o *options) *cobra.Command {
	var owner string
	cmd := o.changeCommand(&cobra.Command{
		Use:   "unpin PIN…",
		Short: "Take pins away",
		Long: `Takes pins of one owner away. Those of other owners stay, and so do those of the
configuration and of the pin file: change these there.`,
		Example: `  larder unpin registry.k8s.io/pause:3.10
  larder unpin 'docker.io/library/*-lts' --owner base-images`,
	}, func(ctx context.Context, c *admin.Client, pin string) (any, string, error) {
		res, err := c.Unpin(ctx, admin.PinRequest{Ref: pin, Owner: owner})
		return res, res.Ref + ": unpinned", err
	})
	cmd.ValidArgsFunction = o.completePins
	cmd.Flags().StringVar(&owner, "owner", cache.PinOwnerCLI, "whose pin it is")
	return cmd
}

func newPinsCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "pins",
		Short: "List what is pinned, by whom and why",
		Long: `Lists all pins: those of larder pin, of the configuration (owner config) and of
the pin file (owner file). IMAGES counts the stored images that a pin keeps; absent is
a reference or digest that is pinned and not stored.`,
		Example: `  larder pins
  larder pins --json | jq '.[] | select(.absent) | .name'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			answer, err := client.Pins(cmd.Context())
			if err != nil {
				return err
			}
			if answer.Problem != "" {
				fmt.Fprintf(o.stderr, "warning: the pin file is broken, what it held before still holds: %s\n", answer.Problem)
			}
			if asJSON {
				return o.printJSON(answer.Pins)
			}
			return printPins(o.stdout, answer.Pins)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printPins(w io.Writer, pins []remotes.PinStatus) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "PIN\tOWNER\tIMAGES\tSINCE\tREASON")
	for _, p := range pins {
		images := fmt.Sprint(p.Images)
		if p.Absent {
			images = "absent"
		}
		since := "-"
		if !p.Created.IsZero() {
			since = ago(p.Created)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", p.Name, p.Owner, images, since, orDash(printable(p.Reason)))
	}
	return tw.Flush()
}

// completePins completes what the command line can unpin.
func (o *options) completePins(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	owner, _ := cmd.Flags().GetString("owner")
	return o.complete(func(ctx context.Context, c *admin.Client) (names []string, err error) {
		answer, err := c.Pins(ctx)
		for _, p := range answer.Pins {
			if p.Owner == owner {
				names = append(names, p.Name)
			}
		}
		return names, err
	})
}
