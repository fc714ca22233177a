package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/plugin/takeover"
	"github.com/larder-project/larder/remotes"
)

func newAdoptCommand(o *options) *cobra.Command {
	var root string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "adopt",
		Short: "Take over what containerd has stored, without a copy",
		Long: `Moves the blobs of containerd's own content store into larder's, on the same file
system and without a copy: for the way into larder setup containerd --mode proxy.
Each is read and compared with its digest first. A damaged one is not taken over;
the images that need it are named, and have to be removed from containerd and
pulled again. The exit code is 1 then, and all else is done.

containerd and larder must be stopped. The order is: stop both, adopt, start
larder, setup containerd --mode proxy, start containerd. larder eject is the way
back. Whatever ends it, run it again: nothing is lost in between.`,
		Example: `  systemctl stop containerd larder
  larder adopt
  systemctl start larder && larder setup containerd --mode proxy && systemctl start containerd`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.adopt(cmd.Context(), root, asJSON) },
	}
	addTakeoverFlags(cmd, &root, &asJSON)
	return cmd
}

func newEjectCommand(o *options) *cobra.Command {
	var root string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "eject",
		Short: "Hand back to containerd what it has in larder's store",
		Long: `Gives containerd's own content store all blobs that containerd's database knows,
on the same file system and without a copy: for the way out of larder setup
containerd --mode proxy. larder keeps its own names of them, as its rules say.
The exit code is 1 if something is in neither of the two; all else is done then.

containerd and larder must be stopped. The order is: stop both, eject, setup
containerd --undo, start both. Whatever ends it, run it again: nothing is lost
in between.`,
		Example: `  systemctl stop containerd larder
  larder eject
  larder setup containerd --undo && systemctl start larder containerd`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.eject(cmd.Context(), root, asJSON) },
	}
	addTakeoverFlags(cmd, &root, &asJSON)
	return cmd
}

func addTakeoverFlags(cmd *cobra.Command, root *string, asJSON *bool) {
	cmd.Flags().StringVar(root, "containerd-root", takeover.DefaultRoot, "containerd's root `folder`")
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagDirname("containerd-root") // fails for a flag that does not exist
}

func (o *options) adopt(ctx context.Context, root string, asJSON bool) error {
	cfg, err := o.loadConfig()
	if err != nil {
		return err
	}
	if !cfg.Proxy.HasContent() {
		return fmt.Errorf("larder is not to be containerd's content store, and would not keep what it takes over; set [proxy] enabled = true, services = [\"content\", \"diff\"]: %w",
			errdefs.ErrFailedPrecondition)
	}
	var res takeover.Adopted
	show := o.newVerifyDisplay(asJSON)
	err = o.withStopped(cfg, root, func(store *cache.Store, c *takeover.Containerd) (err error) {
		res, err = takeover.Adopt(ctx, store, c, func(p takeover.Progress) { show.progress(remotes.VerifyProgress{Bytes: p.Bytes, Total: p.Total}) })
		return err
	})
	show.close()
	if err != nil {
		return err
	}
	if asJSON {
		err = o.printJSON(res)
	} else {
		fmt.Fprintf(o.stdout, "took over %s, %s, without a copy; %s in the store already\n",
			countOf(res.Blobs, "blob", "blobs"), humanize.IBytes(uint64(res.Bytes)), countOf(res.Had, "was", "were"))
		printNeeded(o.stdout, res.Damaged)
		fmt.Fprintf(o.stderr, "\nStart larder, run larder setup containerd --mode proxy, and start containerd.\n")
	}
	if n := len(res.Damaged); n > 0 {
		err = errors.Join(err, fmt.Errorf("%s damaged and not taken over: remove the images that need them from containerd, and pull them again", countOf(n, "blob is", "blobs are")))
	}
	return err
}

func (o *options) eject(ctx context.Context, root string, asJSON bool) error {
	cfg, err := o.loadConfig()
	if err != nil {
		return err
	}
	var res takeover.Ejected
	err = o.withStopped(cfg, root, func(store *cache.Store, c *takeover.Containerd) (err error) {
		res, err = takeover.Eject(ctx, store, c)
		return err
	})
	if err != nil {
		return err
	}
	if asJSON {
		err = o.printJSON(res)
	} else {
		fmt.Fprintf(o.stdout, "handed back %s, without a copy; containerd had %d\n", countOf(res.Blobs, "blob", "blobs"), res.Had)
		printNeeded(o.stdout, res.Missing)
		undo := "larder setup containerd --undo"
		if len(res.Missing) > 0 {
			undo += " --forget-images" // it refuses without, as containerd lacks them
		}
		fmt.Fprintf(o.stderr, "\nRun %s, and start larder and containerd.\n", undo)
	}
	if n := len(res.Missing); n > 0 {
		err = errors.Join(err, fmt.Errorf("%s in containerd's database and nowhere else: remove the images that need them from containerd, and pull them again", countOf(n, "blob is", "blobs are")))
	}
	return err
}

// withStopped opens the store and containerd, which must both be stopped, as the daemon would.
func (o *options) withStopped(cfg *config.Config, root string, do func(*cache.Store, *takeover.Containerd) error) (err error) {
	if _, err := os.Stat(string(cfg.Root)); err != nil && !cfg.Proxy.HasContent() {
		return fmt.Errorf("root: %w", err) // there is nothing to hand back
	}
	if err := checkRoot(string(cfg.Root)); err != nil {
		return err
	}
	c, err := takeover.Open(root, cache.OSDisk())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	store, err := cache.Open(string(cfg.Root), cache.WithLogger(o.newLogger(cfg.Log)), cache.WithExposure(time.Duration(cfg.Proxy.Grace)))
	if errdefs.IsUnavailable(err) {
		return fmt.Errorf("stop larder first: %w", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return do(store, c)
}

// printNeeded prints which blobs cannot be had, and who needs them.
func printNeeded(w io.Writer, damaged []takeover.Damaged) {
	for _, d := range damaged {
		fmt.Fprintf(w, "%s\n  %s\n", d.Digest, d.Why)
		if d.Path != "" {
			fmt.Fprintf(w, "  its bytes are in %s\n", d.Path)
		}
		if len(d.Images) > 0 {
			fmt.Fprintf(w, "  needed by %s\n", strings.Join(d.Images, " "))
		}
	}
}
