package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/remotes"
)

func newLifecycleCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lifecycle",
		Short: "See and carry out lifecycle policies",
		Long: `Lifecycle policies say which stored images of a repository are removed. They are
ECR's, word for word: lifecycle_policy of [[rules]] and [[templates]]. The daemon
carries them out once an hour.`,
		Example: `  larder lifecycle preview
  larder lifecycle run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(
		o.lifecycleVerb(&cobra.Command{
			Use:   "preview [REPO]",
			Short: "Show what would be removed now, and by which rule",
			Long: `Shows the images of a repository, or of all that have a policy, that a rule selects:
those that would go now, and those that stay all the same because they are pinned,
in use, being pulled or part of an index that stays. Nothing is removed.`,
			Example: `  larder lifecycle preview
  larder lifecycle preview docker.io/library/nginx
  larder lifecycle preview --json | jq '.repositories[].decisions[] | select(.kept == null)'`,
		}, (*admin.Client).Lifecycle),
		o.lifecycleVerb(&cobra.Command{
			Use:   "run [REPO]",
			Short: "Remove now what the policies say",
			Long: `Does at once what the daemon does once an hour, for a repository or for all that
have a policy, and shows what was done.`,
			Example: `  larder lifecycle run
  larder lifecycle run docker.io/library/nginx`,
		}, (*admin.Client).RunLifecycle),
	)
	return cmd
}

// lifecycleVerb makes a verb of what the daemon does with policies.
func (o *options) lifecycleVerb(cmd *cobra.Command, do func(*admin.Client, context.Context, string) (admin.LifecycleResult, error)) *cobra.Command {
	var asJSON bool
	cmd.Args = cobra.MaximumNArgs(1)
	cmd.ValidArgsFunction = o.completeRepositories
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := o.client()
		if err != nil {
			return err
		}
		res, err := do(client, cmd.Context(), strings.Join(args, ""))
		if err != nil {
			return err
		}
		if asJSON {
			err = o.printJSON(res)
		} else {
			err = printLifecycle(o.stdout, res)
		}
		if err != nil {
			return err
		}
		return leftAlone(res.Repositories)
	}
	return cmd
}

func printLifecycle(w io.Writer, res admin.LifecycleResult) error {
	gone, word := 0, "would go"
	if res.Removed != nil {
		word = "removed"
	}
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "REPOSITORY\tDIGEST\tTAGS\tPUSHED\tPULLED\tRULE\tOUTCOME")
	for _, rep := range res.Repositories {
		for _, d := range rep.Decisions {
			outcome := "stays, " + printable(d.Kept)
			if d.Kept == "" {
				outcome = word
				gone++
			}
			pulled := "-"
			if !d.Pulled.IsZero() {
				pulled = ago(d.Pulled)
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", rep.Repository, shortDigest(d.Digest), orDash(strings.Join(d.Tags, ",")),
				ago(d.Pushed), pulled, ruleText(d), outcome)
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	text := fmt.Sprintf("\n%s in %s with a policy", english.Plural(gone, "image", "")+" "+word,
		english.Plural(len(res.Repositories), "stored repository", "stored repositories"))
	if res.Removed != nil {
		text += fmt.Sprintf(": %d blobs, %s", res.Removed.Blobs, humanize.IBytes(uint64(res.Removed.Bytes)))
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

func ruleText(d remotes.LifecycleDecision) string {
	if d.Description == "" {
		return fmt.Sprint(d.Priority)
	}
	return fmt.Sprintf("%d %s", d.Priority, printable(d.Description))
}

// leftAlone is an error if a repository could not be looked at.
func leftAlone(reports []remotes.LifecycleReport) error {
	var errs []error
	for _, rep := range reports {
		if rep.Problem != "" {
			errs = append(errs, fmt.Errorf("%s: nothing goes: %s", rep.Repository, rep.Problem))
		}
	}
	return errors.Join(errs...)
}

// completeRepositories completes repositories that have stored images.
func (o *options) completeRepositories(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, directive := o.completeReferences(cmd, args, toComplete)
	var repos []string
	for _, name := range names {
		repo, _, _ := cache.SplitReference(name)
		repos = append(repos, repo)
	}
	slices.Sort(repos)
	return slices.Compact(repos), directive
}
