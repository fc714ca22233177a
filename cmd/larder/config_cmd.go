package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cmd/larder/config"
)

// newConfigCommand returns the verb that checks and prints the configuration.
func newConfigCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check or print the configuration",
		Example: `  larder config check ./config.toml
  larder config dump --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigCheckCommand(o), newConfigDumpCommand(o))
	return cmd
}

func newConfigCheckCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration file",
		Long: `Checks FILE, else the file given by --config, else ` + config.DefaultPath + `.

All problems of the file are reported, each with line and key; if it has none,
those of the files that it names (certificates, the kubelet's configuration), and
of what goes together: what larder serve would refuse. The exit code is then 2.
Warnings name what is valid but probably not meant on this machine. A running
daemon is not asked and not changed.`,
		Example: `  larder config check
  larder config check ./config.toml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file := o.configPath
			if len(args) == 1 {
				file = args[0]
			}
			return checkConfig(o, file)
		},
	}
}

func checkConfig(o *options, file string) error {
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	if err := checkWiring(c, newWarner(o.stderr)); err != nil {
		return o.misconfigured(file, err)
	}
	for _, w := range c.Warnings() {
		fmt.Fprintf(o.stderr, "warning: %s\n", w)
	}
	// A secret that is not there yet is among the warnings.
	if _, err := readSecret(string(c.Mirror.SecretFile)); err != nil && !errdefs.IsNotFound(err) {
		return o.misconfigured(file, err)
	}
	name := cmp.Or(file, config.DefaultPath)
	if _, err := os.Stat(name); file == "" && errors.Is(err, fs.ErrNotExist) {
		_, err := fmt.Fprintf(o.stdout, "%s: no such file, the defaults hold: ok\n", name)
		return err
	}
	_, err = fmt.Fprintf(o.stdout, "%s: ok\n", name)
	return err
}

// checkWiring finds what the daemon would refuse at its start.
func checkWiring(c *config.Config, logger *slog.Logger) error {
	wired, err := wire(c, mirrorAddr(c.Mirror.Address), logger)
	if err != nil {
		return err
	}
	wired.Pool.Close()
	return nil
}

func newConfigDumpCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "dump",
		Short: "Print the configuration with all defaults filled in",
		Long: `Prints what larder serve would run with: the configuration file over the
defaults. Of secrets it prints the paths only.`,
		Example: `  larder config dump
  larder config dump --json | jq .freshness`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := o.loadConfig()
			if err != nil {
				return err
			}
			return dumpConfig(o, c, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead of TOML")
	return cmd
}

func dumpConfig(o *options, c *config.Config, asJSON bool) error {
	encode := c.TOML
	if asJSON {
		encode = c.JSON
	}
	text, err := encode()
	if err != nil {
		return err
	}
	_, err = o.stdout.Write(text)
	return err
}
