package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cmd/larder/ecrrules"
	"github.com/larder-project/larder/remotes"
)

func newRulesExportCommand(o *options) *cobra.Command {
	var as string
	var builtin bool
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the rules for an AWS account",
		Long: `Writes the configured rules as pull through cache rules of Amazon ECR: calls of
the AWS command line, a Terraform or CloudFormation resource for each, or the
JSON of aws ecr describe-pull-through-cache-rules, which larder rules import reads.
Configured templates become repository creation templates.

ECR takes less than larder. What it does not take is left out with a warning,
and with a comment in formats that have comments.`,
		Example: `  larder rules export --as aws-cli
  larder rules export --as terraform > pull_through_cache.tf
  larder rules export --as json --builtin`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if !slices.Contains(ecrrules.Formats(), ecrrules.Format(as)) {
				return &usageError{fmt.Errorf("--as %q: want one of %s", as, formatNames())}
			}
			return o.exportRules(ecrrules.Format(as), builtin)
		},
	}
	cmd.Flags().StringVar(&as, "as", string(ecrrules.FormatCLI), "`format`: "+formatNames())
	cmd.Flags().BoolVar(&builtin, "builtin", false, "write the built-in rules, too")
	// It fails for a flag that does not exist only.
	_ = cmd.RegisterFlagCompletionFunc("as", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, f := range ecrrules.Formats() {
			names = append(names, string(f))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func formatNames() string {
	text := ""
	for i, f := range ecrrules.Formats() {
		if i > 0 {
			text += ", "
		}
		text += string(f)
	}
	return text
}

func (o *options) exportRules(as ecrrules.Format, builtin bool) error {
	cfg, set, err := o.loadRulesWithPolicies()
	if err != nil {
		return err
	}
	rules := rulesOf(cfg)
	if builtin {
		rules = append(rules, slices.DeleteFunc(set.All(), func(r remotes.Rule) bool { return !set.isBuiltin(r) })...)
	}
	text, warnings, err := ecrrules.Export(rules, templatesOf(cfg), as)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintf(o.stderr, "warning: %s\n", w)
	}
	if len(rules)+len(cfg.Templates) == 0 {
		fmt.Fprintln(o.stderr, "warning: no rules are configured; --builtin writes the built-in ones")
	}
	_, err = o.stdout.Write(text)
	return err
}
