package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/larder-project/larder/plugin/containerdconf"
	"github.com/larder-project/larder/plugin/hosts"
)

// newSetupCommand returns the verb that prepares other programs on the node for larder.
func newSetupCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Prepare this node's programs for larder",
		Example: `  larder setup containerd
  larder setup containerd --undo`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSetupContainerdCommand(o))
	return cmd
}

// containerdSetup holds the flags of larder setup containerd.
type containerdSetup struct {
	mode                            containerdconf.Mode // "": as it is
	certsDir, containerdConfig      string
	program                         string
	registries                      []string
	print, undo, force, jsonEncoded bool
	forget                          bool
}

func newSetupContainerdCommand(o *options) *cobra.Command {
	var s containerdSetup
	var mode string
	cmd := &cobra.Command{
		Use:   "containerd",
		Short: "Have containerd use larder, or take larder away from it",
		Long: `Writes a hosts.toml for each registry host into containerd's certs.d folder. Each names larder's mirror first;
when the mirror does not answer, containerd goes on to the registry itself. containerd reads the files at every
pull and needs no restart for them.

A hosts.toml that larder did not write is kept as hosts.toml.before-larder, and --undo puts it back. Running the
command again changes nothing. If the config names a mirror.secret_file, its secret goes into the files; a secret file
that does not exist is created.

With --mode, larder does more for containerd than that:

  mirror       the files above. A larder that is down costs nothing
  mirror+diff  larder unpacks layers, too: [proxy] services = ["diff"]
  proxy        larder is containerd's content store, and unpacks layers. What containerd has
               stored is handed over by larder adopt, and handed back by larder eject

The last two write 50-larder.toml into containerd's conf.d, and the line that has containerd read it if there is none.
containerd's own "config dump" is asked whether anything else would change; then nothing is written. larder does not
restart containerd. While it is down, running containers go on; with mirror+diff no image can be pulled, and with
proxy no pod can be started either. A change of modes after which containerd would not find its images is refused.`,
		Example: `  sudo larder setup containerd
  larder setup containerd --print
  sudo larder setup containerd --mode proxy
  sudo larder setup containerd --registry registry.example:5000
  sudo larder setup containerd --undo`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if mode != "" {
				if s.mode, err = containerdconf.ParseMode(mode); err != nil {
					return &usageError{err}
				}
			}
			return s.run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&mode, "mode", "", "what larder is for containerd: mirror, mirror+diff or proxy (default: as it is, mirror at first)")
	f.StringVar(&s.certsDir, "certs-d", hosts.DefaultCertsDir, "containerd's config_path `folder`")
	f.StringVar(&s.containerdConfig, "containerd-config", hosts.DefaultContainerdConfig, "containerd's config `file`")
	f.StringVar(&s.program, "containerd-program", containerdconf.DefaultProgram, "containerd's `executable`, asked for its version and what its config comes to")
	f.StringArrayVar(&s.registries, "registry", nil, "one more registry `host`; may be repeated")
	f.BoolVar(&s.print, "print", false, "print the files, with the node secret, and write nothing")
	f.BoolVar(&s.undo, "undo", false, "take larder's files away and put back those that were there before")
	f.BoolVar(&s.force, "force", false, "overwrite or remove larder's files even where they were changed by hand; set a mode that larder does not serve yet")
	f.BoolVar(&s.forget, "forget-images", false, "change the mode though containerd's images stay where it does not look any more")
	f.BoolVar(&s.jsonEncoded, "json", false, "print JSON")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := cmd.ValidateFlagGroups(); err != nil {
			return &usageError{err}
		}
		return nil
	}
	cmd.MarkFlagsMutuallyExclusive("print", "undo")
	cmd.MarkFlagsMutuallyExclusive("mode", "undo")
	cmd.MarkFlagsMutuallyExclusive("registry", "undo")
	_ = cmd.RegisterFlagCompletionFunc("mode", completeModes) // fails for a flag that does not exist
	return cmd
}

// setupResult is what --json prints.
type setupResult struct {
	Files         []hosts.File    `json:"files,omitempty"`
	Changes       []hosts.Change  `json:"changes,omitempty"`
	Findings      []hosts.Finding `json:"findings,omitempty"`
	SecretFile    string          `json:"secret_file,omitempty"`
	SecretCreated bool            `json:"secret_created,omitempty"`
	Containerd    containerdState `json:"containerd"`
}

func (s containerdSetup) run(ctx context.Context, o *options) error {
	var res setupResult
	var err error
	if s.certsDir, err = filepath.Abs(s.certsDir); err != nil { // containerd's config needs it so
		return fmt.Errorf("--certs-d %s: %w", s.certsDir, err)
	}
	if s.containerdConfig, err = filepath.Abs(s.containerdConfig); err != nil {
		return fmt.Errorf("--containerd-config %s: %w", s.containerdConfig, err)
	}
	switch {
	case s.undo:
		// No config is read: --undo must work when it is broken or gone.
		if res.Containerd, err = s.undoMode(ctx); err == nil {
			res.Changes, err = hosts.Undo(ctx, hosts.UndoOptions{CertsDir: s.certsDir, Force: s.force})
		}
	default:
		err = s.setUp(ctx, o, &res)
	}
	if len(res.Files)+len(res.Changes) > 0 && !s.undo {
		res.Findings = append(s.inspect(), managed(res.Containerd.Mode)...)
	}
	return errors.Join(err, s.report(o, res, err == nil))
}

// setUp does what is not --undo. containerd's configuration goes first: where that is refused, nothing is changed.
func (s containerdSetup) setUp(ctx context.Context, o *options, res *setupResult) error {
	ho, err := s.options(o, res)
	if err != nil {
		return err
	}
	if res.Containerd, err = s.setMode(ctx, o); err != nil {
		return err
	}
	if s.print {
		res.Files, err = hosts.Plan(ho)
	} else {
		res.Changes, err = hosts.Apply(ctx, ho)
	}
	return err
}

// options turns larder's config and the flags into what package hosts needs. Unless --print is given it makes the
// secret file if need be.
func (s containerdSetup) options(o *options, res *setupResult) (hosts.Options, error) {
	ho := hosts.Options{CertsDir: s.certsDir, Force: s.force}
	cfg, err := o.loadConfig()
	if err != nil {
		return ho, err
	}
	if ho.MirrorURL, err = hosts.MirrorURL(string(cfg.Mirror.Address)); err != nil {
		return ho, err
	}
	ho.Registries = append(hosts.DefaultRegistries(), s.registries...)
	res.SecretFile = string(cfg.Mirror.SecretFile)
	switch {
	case res.SecretFile == "":
	case s.print:
		ho.Secret, err = hosts.ReadSecret(res.SecretFile)
		if errdefs.IsNotFound(err) {
			fmt.Fprintf(o.stderr, "larder: %s does not exist yet; without --print it is created, and each file gets a header with its secret\n", res.SecretFile)
			err = nil
		}
	default:
		ho.Secret, res.SecretCreated, err = hosts.EnsureSecret(res.SecretFile)
	}
	return ho, err
}

// inspect looks at what else the node needs. That it cannot look (a config that only root may read) is a finding and no
// error: the files are what was asked for.
func (s containerdSetup) inspect() []hosts.Finding {
	found, err := hosts.Inspect(s.certsDir)
	if err != nil {
		found = append(found, hosts.Finding{Path: s.certsDir, Problem: err.Error(), Fix: "see for yourself what else stands there"})
	}
	config, err := hosts.InspectConfig(s.containerdConfig, s.certsDir)
	if err != nil {
		config = append(config, hosts.Finding{Path: s.containerdConfig, Problem: err.Error(), Fix: "see for yourself that its config_path is " + s.certsDir})
	}
	return append(found, config...)
}

// report prints res: what was done on stdout, what is left to do on stderr.
func (s containerdSetup) report(o *options, res setupResult, ok bool) error {
	if s.jsonEncoded {
		return o.printJSON(res)
	}
	for i, f := range res.Files {
		if i > 0 {
			fmt.Fprintln(o.stdout)
		}
		fmt.Fprintf(o.stdout, "### %s (%s)\n%s", f.Path, f.State, f.Content)
	}
	if res.SecretCreated {
		fmt.Fprintf(o.stdout, "%-9s %s\n", "created", res.SecretFile)
	}
	res.Containerd.writeTo(o.stdout)
	for _, ch := range res.Changes {
		fmt.Fprintf(o.stdout, "%-9s %s\n", ch.Action, ch.Path)
		if ch.Backup != "" {
			fmt.Fprintf(o.stdout, "%-9s %s (--undo puts it back)\n", "kept", ch.Backup)
		}
	}
	if ok && s.undo && len(res.Changes)+len(res.Containerd.Changes) == 0 {
		fmt.Fprintf(o.stdout, "nothing of larder's in %s, and nothing in %s\n", s.certsDir, s.containerdConfig)
	}
	printFindings(o.stderr, res.Findings)
	if ok && !s.undo {
		fmt.Fprintf(o.stderr, "\ncontainerd must have config_path = %q as its one root; ctr does not read that: give it --hosts-dir %s\n", s.certsDir, s.certsDir)
	}
	if ok && !s.print {
		res.Containerd.advise(o.stderr)
	}
	return nil
}

func printFindings(w io.Writer, findings []hosts.Finding) {
	for _, f := range findings {
		fmt.Fprintf(w, "\nwarning: %s: %s\n%s\n", f.Path, f.Problem, f.Fix)
	}
}
