package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/remotes"
)

func newVerifyCommand(o *options) *cobra.Command {
	var req admin.VerifyRequest
	var all, asJSON, offline bool
	cmd := &cobra.Command{
		Use:   "verify [REF…]",
		Short: "Read stored blobs from the disk and compare their digests",
		Long: `Reads the blobs of the named images, or of the whole store, from the disk and
compares their digests. A damaged one is moved to the quarantine folder of the
store and fetched again from any repository that is known to have it.

The exit code is 1 if something is lost: damaged, and not fetched again. What is
lost is fetched when a pull asks for it and its upstream has it.

With --offline the store is read without the daemon, which must not run, and
nothing is fetched.`,
		Example: `  larder verify docker.io/library/nginx:1.29
  larder verify --all
  larder verify --since 24h            # what was stored in the last day
  larder verify --all --json | jq '.damaged[] | select(.lost)'`,
		ValidArgsFunction: o.completeReferences,
		RunE: func(cmd *cobra.Command, refs []string) error {
			ways := 0
			for _, given := range []bool{len(refs) > 0, all, cmd.Flags().Changed("since")} {
				if given {
					ways++
				}
			}
			if ways != 1 {
				return &usageError{errors.New("verify: name images, or give one of --all and --since")}
			}
			if req.Since < 0 || cmd.Flags().Changed("since") && req.Since == 0 {
				return &usageError{fmt.Errorf("verify: --since %s: must be more than 0s", req.Since)}
			}
			req.Refs = refs
			return o.verify(cmd.Context(), req, asJSON, offline)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "the whole store")
	cmd.Flags().DurationVar(&req.Since, "since", 0, "what was stored in this time, for instance 24h")
	cmd.Flags().BoolVar(&req.NoRefetch, "no-refetch", false, "do not fetch again what is damaged")
	cmd.Flags().BoolVar(&offline, "offline", false, "without the daemon, which must not run; fetches nothing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (o *options) verify(ctx context.Context, req admin.VerifyRequest, asJSON, offline bool) error {
	run := o.verifyByDaemon
	if offline {
		req.NoRefetch = true
		run = o.verifyHere
	}
	show := o.newVerifyDisplay(asJSON)
	result, err := run(ctx, req, show.progress)
	show.close()
	if err != nil && len(result.Damaged) == 0 {
		return err
	}
	if asJSON {
		err = errors.Join(err, o.printJSON(result))
	} else {
		err = errors.Join(err, printVerified(o.stdout, result))
	}
	return errors.Join(err, verdict(result))
}

func (o *options) verifyByDaemon(ctx context.Context, req admin.VerifyRequest, report func(remotes.VerifyProgress)) (remotes.VerifyResult, error) {
	client, err := o.client()
	if err != nil {
		return remotes.VerifyResult{}, err
	}
	return client.Verify(ctx, req, report)
}

// verifyHere opens the store as the daemon would.
func (o *options) verifyHere(ctx context.Context, req admin.VerifyRequest, report func(remotes.VerifyProgress)) (result remotes.VerifyResult, err error) {
	cfg, err := o.loadConfig()
	if err != nil {
		return result, err
	}
	if _, err := os.Stat(string(cfg.Root)); err != nil {
		return result, fmt.Errorf("root: %w", err) // to verify makes no store
	}
	logger := o.newLogger(cfg.Log)
	store, err := cache.Open(string(cfg.Root), cache.WithLogger(logger))
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	registry, err := newRegistry(cfg, store, &net.TCPAddr{}, logger)
	if err != nil {
		return result, o.misconfigured(o.configPath, err)
	}
	defer registry.Pool.Close()
	return admin.VerifyHere(ctx, registry, req, report)
}

// verdict is an error if something is lost, or is not known to be well.
func verdict(r remotes.VerifyResult) error {
	lost := 0
	for _, d := range r.Damaged {
		if d.Lost != "" {
			lost++
		}
	}
	var errs []error
	if lost > 0 {
		errs = append(errs, fmt.Errorf("%s lost: damaged, and not fetched again; a pull brings what an upstream still has", countOf(lost, "blob is", "blobs are")))
	}
	if n := len(r.Unread); n > 0 {
		errs = append(errs, fmt.Errorf("%s not be verified, the first one: %s", countOf(n, "blob could", "blobs could"), r.Unread[0].Why))
	}
	return errors.Join(errs...)
}

func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func printVerified(w io.Writer, r remotes.VerifyResult) error {
	var b strings.Builder
	for _, d := range r.Damaged {
		fmt.Fprintf(&b, "%s\n  damaged: %s\n", d.Digest, d.Why)
		for _, name := range d.Images {
			fmt.Fprintf(&b, "  needed by %s\n", name)
		}
		if d.Lost != "" {
			fmt.Fprintf(&b, "  LOST: %s\n", d.Lost)
		} else {
			fmt.Fprintf(&b, "  fetched again from %s\n", orDash(d.From))
		}
	}
	fmt.Fprintf(&b, "verified %s, %s: %d damaged\n", countOf(r.Blobs, "blob", "blobs"), humanize.IBytes(uint64(r.Bytes)), len(r.Damaged))
	_, err := io.WriteString(w, b.String())
	return err
}

// verifyDisplay shows a verification's progress: a bar on a terminal, and
// nothing elsewhere.
type verifyDisplay struct {
	progressBar *mpb.Progress
	bar         *mpb.Bar
}

func (o *options) newVerifyDisplay(asJSON bool) *verifyDisplay {
	f, ok := o.stderr.(*os.File)
	if asJSON || !ok || !term.IsTerminal(int(f.Fd())) {
		return &verifyDisplay{}
	}
	d := &verifyDisplay{progressBar: mpb.New(mpb.WithOutput(f), mpb.WithWidth(40))}
	d.bar = d.progressBar.AddBar(0,
		mpb.PrependDecorators(decor.Name("verify ")),
		mpb.AppendDecorators(
			decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace),
			decor.AverageSpeed(decor.SizeB1024(0), " % .1f", decor.WCSyncSpace),
			decor.AverageETA(decor.ET_STYLE_GO, decor.WCSyncSpace),
		),
	)
	return d
}

func (d *verifyDisplay) progress(p remotes.VerifyProgress) {
	if d.bar != nil {
		d.bar.SetTotal(p.Total, false)
		d.bar.SetCurrent(p.Bytes)
	}
}

func (d *verifyDisplay) close() {
	if d.bar != nil {
		d.bar.Abort(false)
		d.progressBar.Wait()
	}
}
