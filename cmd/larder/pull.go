package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/remotes"
)

func newPullCommand(o *options) *cobra.Command {
	var platforms []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "pull REF…",
		Short: "Bring images into the store before they are needed",
		Long: `Brings each image with all its layers into the store of the running daemon.
What is stored already is not fetched again. When it is interrupted, the daemon
finishes the blobs it has begun; a later pull brings the rest.

Companions (signatures, attestations, SBOMs) come along if companions.fetch is
set; that one could not be fetched is a warning.`,
		Example: `  larder pull docker.io/library/nginx:1.29
  larder pull nginx registry.k8s.io/pause:3.10
  larder pull --platform linux/amd64,linux/arm64 ghcr.io/acme/app:v1
  larder pull --platform all --json docker.io/library/alpine`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, refs []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			var errs []error
			for _, ref := range refs {
				errs = append(errs, o.pull(cmd.Context(), client, admin.PullRequest{Ref: ref, Platforms: platforms}, asJSON))
				if cmd.Context().Err() != nil {
					break
				}
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, "os/arch[/variant] to bring, or all (default: this machine's)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object for each image")
	return cmd
}

func (o *options) pull(ctx context.Context, client *admin.Client, req admin.PullRequest, asJSON bool) error {
	show := o.newPullDisplay(asJSON)
	res, err := client.Pull(ctx, req, show.blob)
	show.close(err == nil)
	if err != nil {
		return err
	}
	if res.Warning != "" {
		fmt.Fprintf(o.stderr, "larder: %s is whole, but some of its companions were not fetched: %s\n", res.Ref, res.Warning)
	}
	if asJSON {
		return o.printJSON(res)
	}
	companions := ""
	if res.Companions > 0 {
		companions = fmt.Sprintf(", %d companions", res.Companions)
	}
	_, err = fmt.Fprintf(o.stdout, "%s\n  %s: %s in %d blobs, %s fetched%s\n",
		res.Ref, res.Digest, humanize.IBytes(uint64(res.Bytes)), res.Manifests+res.Blobs, humanize.IBytes(uint64(res.Fetched)), companions)
	return err
}

// pullDisplay shows a pull's progress.
type pullDisplay interface {
	blob(remotes.BlobProgress)
	close(ok bool)
}

// newPullDisplay chooses bars on a terminal, lines elsewhere, and silence for
// JSON.
func (o *options) newPullDisplay(asJSON bool) pullDisplay {
	if asJSON {
		return silence{}
	}
	if f, ok := o.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return newBars(f)
	}
	return lines{o.stderr}
}

type silence struct{}

func (silence) blob(remotes.BlobProgress) {}
func (silence) close(bool)                {}
