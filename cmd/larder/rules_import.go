package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/containerd/errdefs"
	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/cmd/larder/ecrrules"
	"github.com/larder-project/larder/remotes"
)

// awsLoader finds region and credentials.
type awsLoader func(ctx context.Context, region, profile string) (aws.Config, error)

// rulesImport holds the flags of larder rules import.
type rulesImport struct {
	region, profile string
	add             bool
	load            awsLoader
}

func newRulesImportCommand(o *options, load awsLoader) *cobra.Command {
	im := rulesImport{load: load}
	cmd := &cobra.Command{
		Use:   "import [FILE|-]",
		Short: "Take over the rules of an AWS account",
		Long: `Reads pull through cache rules of Amazon ECR and prints them as [[rules]] of
larder's configuration. FILE holds the JSON that
aws ecr describe-pull-through-cache-rules prints, "-" is stdin. Without FILE the
account itself is asked, with region and credentials as for any AWS program:
environment, ~/.aws, instance role.

FILE may hold what aws ecr describe-repository-creation-templates prints, too:
templates for pull through caches become [[templates]], with tag mutability and
lifecycle policy. An account that is asked itself is asked for rules only.

--append adds them to the configuration file instead (the one of --config,
else ` + config.DefaultPath + `), except those whose prefix stands there already.
The file's other content stays, and if the result were not valid the file stays
as it was.`,
		Example: `  larder rules import --region eu-central-1
  aws ecr describe-pull-through-cache-rules | larder rules import -
  aws ecr describe-repository-creation-templates | larder rules import - --append
  larder rules import rules.json --append`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"json"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && (im.region != "" || im.profile != "") {
				return &usageError{fmt.Errorf("--region and --profile are for asking AWS, and %s is read instead", args[0])}
			}
			list, err := im.read(cmd, o, args)
			if err != nil {
				return err
			}
			if im.add {
				return o.appendRules(list)
			}
			text, err := ecrrules.TOML(list.Rules, list.Templates)
			if err != nil {
				return err
			}
			_, err = o.stdout.Write(text)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&im.region, "region", "", "AWS `region` whose rules are asked for")
	f.StringVar(&im.profile, "profile", "", "`profile` of the AWS configuration")
	f.BoolVar(&im.add, "append", false, "add the rules to the configuration file")
	return cmd
}

// read reads from the file or from stdin, or the rules from the account.
func (im rulesImport) read(cmd *cobra.Command, o *options, args []string) (ecrrules.List, error) {
	if len(args) == 0 {
		cfg, err := im.load(cmd.Context(), im.region, im.profile)
		if err != nil {
			return ecrrules.List{}, err
		}
		rules, err := ecrrules.Describe(cmd.Context(), cfg)
		return ecrrules.List{Rules: rules}, err
	}
	name, in := "stdin", cmd.InOrStdin()
	if args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return ecrrules.List{}, err
		}
		defer f.Close()
		name, in = args[0], f
	}
	list, err := ecrrules.Decode(in)
	if err != nil {
		return ecrrules.List{}, eachPrefixed(name, err)
	}
	if len(list.Rules)+len(list.Templates)+len(list.Skipped) == 0 {
		fmt.Fprintf(o.stderr, "warning: %s: there are no rules in it\n", name)
	}
	for _, text := range list.Skipped {
		fmt.Fprintf(o.stderr, "warning: %s: %s\n", name, text)
	}
	if list.More {
		fmt.Fprintf(o.stderr, "warning: %s: the list goes on (nextToken), the account has more\n", name)
	}
	return list, nil
}

// appendRules adds those rules and templates to the configuration file whose
// prefix is not there yet.
func (o *options) appendRules(list ecrrules.List) error {
	cfg, err := o.loadConfig()
	if err != nil {
		return err
	}
	add := ecrrules.List{Rules: o.newRules(cfg, list.Rules), Templates: o.newTemplates(cfg, list.Templates)}
	file := cmp.Or(o.configPath, config.DefaultPath)
	if len(add.Rules)+len(add.Templates) == 0 {
		_, err := fmt.Fprintf(o.stdout, "%s: nothing to add\n", file)
		return err
	}
	text, err := ecrrules.TOML(add.Rules, add.Templates)
	if err != nil {
		return err
	}
	silent := slog.New(slog.DiscardHandler)
	broken := checkWiring(cfg, silent) != nil // before, and by something else
	err = config.Append(file, text, func(c *config.Config) error {
		if broken {
			return nil
		}
		return o.misconfigured(file, checkWiring(c, silent))
	})
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("%w; run as root, or give --config: %w", err, errdefs.ErrPermissionDenied)
		}
		return err
	}
	var added []string
	for _, r := range add.Rules {
		fmt.Fprintf(o.stdout, "%-8s %s -> %s\n", "added", r.ECRRepositoryPrefix, r.UpstreamRegistryURL)
	}
	if n := len(add.Rules); n > 0 {
		added = append(added, english.Plural(n, "rule", ""))
	}
	for _, t := range add.Templates {
		fmt.Fprintf(o.stdout, "%-8s template %s\n", "added", t.Prefix)
	}
	if n := len(add.Templates); n > 0 {
		added = append(added, english.Plural(n, "template", ""))
	}
	_, err = fmt.Fprintf(o.stdout, "%s: %s added; larder rules validate asks the upstreams, a running daemon takes them at its next start\n", file, strings.Join(added, " and "))
	return err
}

// newRules are those whose prefix is not configured. It tells of the others.
func (o *options) newRules(cfg *config.Config, rules []remotes.Rule) (add []remotes.Rule) {
	there := map[string]remotes.Rule{}
	for _, r := range rulesOf(cfg) {
		there[prefixOf(r)] = r
	}
	for _, r := range rules {
		if old, ok := there[prefixOf(r)]; ok {
			fmt.Fprintf(o.stdout, "%-8s %s (%s)\n", "skipped", r.ECRRepositoryPrefix, whySkipped(old, r))
			continue
		}
		add = append(add, r)
	}
	return add
}

// newTemplates are those whose prefix is not configured. It tells of the others.
func (o *options) newTemplates(cfg *config.Config, templates []remotes.Template) (add []remotes.Template) {
	there := map[string]bool{}
	for _, t := range cfg.Templates {
		there[strings.TrimSuffix(t.Prefix, "/")] = true
	}
	for _, t := range templates {
		if there[strings.TrimSuffix(t.Prefix, "/")] {
			fmt.Fprintf(o.stdout, "%-8s template %s (is configured already)\n", "skipped", t.Prefix)
			continue
		}
		add = append(add, t)
	}
	return add
}

// whySkipped tells a rule that is there from another one of its prefix.
func whySkipped(old, r remotes.Rule) string {
	a, b := ecrrules.EntryOf(old), ecrrules.EntryOf(r)
	a.ECRRepositoryPrefix, b.ECRRepositoryPrefix = prefixOf(old), prefixOf(r)
	a.UpstreamRepositoryPrefix = cmp.Or(a.UpstreamRepositoryPrefix, remotes.Root)
	b.UpstreamRepositoryPrefix = cmp.Or(b.UpstreamRepositoryPrefix, remotes.Root)
	if a == b {
		return "is configured already, the same"
	}
	return "is configured already, differently: its upstream there is " + old.UpstreamRegistryURL
}
