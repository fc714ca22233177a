package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/cmd/larder/config"
)

// options are what all verbs share.
type options struct {
	configPath     string
	stdout, stderr io.Writer
}

func (o *options) loadConfig() (*config.Config, error) { return config.Load(o.configPath) }

// client connects to the daemon that the configuration names.
func (o *options) client() (*admin.Client, error) {
	cfg, err := o.loadConfig()
	if err != nil {
		return nil, err
	}
	return admin.NewClient(string(cfg.Admin.Address)), nil
}

// printJSON writes v as indented JSON.
func (o *options) printJSON(v any) error {
	enc := json.NewEncoder(o.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func newRootCommand(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   "larder",
		Short: "Keep container images on the node",
		Long: `larder keeps the images that a node needs in a store on that node.

containerd asks larder first; larder answers from its store and, on a miss,
streams from upstream while it stores. Once an image was pulled, its registry
may delete it, limit it or go down: pods still start. Image names stay as they
are.`,
		Example: `  larder serve                                # the daemon
  larder setup containerd                     # point containerd at it
  larder pull docker.io/library/nginx:1.29    # bring an image before it is needed
  larder ls                                   # what is stored`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	root.SetOut(o.stdout)
	root.SetErr(o.stderr)
	root.PersistentFlags().StringVar(&o.configPath, "config", "", "configuration file (default "+config.DefaultPath+" if it exists)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(
		newServeCommand(o), newConfigCommand(o), newRulesCommand(o), newSetupCommand(o), newPullCommand(o), newListCommand(o),
		newShowCommand(o), newRemoveCommand(o), newRefreshCommand(o), newPinCommand(o), newUnpinCommand(o), newPinsCommand(o),
		newHistoryCommand(o), newLifecycleCommand(o), newVerifyCommand(o), newAdoptCommand(o), newEjectCommand(o), newCollectCommand(o), newWhyEvictedCommand(o),
		newStatusCommand(o), newDoctorCommand(o), newVersionCommand(o),
	)
	checkArgsAsUsage(root)
	return root
}

// checkArgsAsUsage makes wrong arguments of every verb a usage error.
func checkArgsAsUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return &usageError{explainArgs(cmd, check, args, err)}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		checkArgsAsUsage(sub)
	}
}

// explainArgs says what is wrong with arguments in words for people: cobra
// calls every one too many an unknown command. check is the verb's own.
func explainArgs(cmd *cobra.Command, check cobra.PositionalArgs, args []string, err error) error {
	if cmd.HasSubCommands() && len(args) > 0 {
		text := fmt.Sprintf("unknown command %q", args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += ", did you mean " + strings.Join(near, " or ") + "?"
		}
		return errors.New(text)
	}
	verb := strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
	if len(args) > 0 && check(cmd, nil) == nil && check(cmd, args[:1]) != nil {
		return fmt.Errorf("%s takes no arguments, got %q", verb, args[0])
	}
	return fmt.Errorf("%s: %w", verb, err)
}
