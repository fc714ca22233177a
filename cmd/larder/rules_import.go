package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

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

--append adds the rules to the configuration file instead (the one of --config,
else ` + config.DefaultPath + `), except those whose prefix stands there already.
The file's other content stays, and if the result were not valid the file stays
as it was.`,
		Example: `  larder rules import --region eu-central-1
  aws ecr describe-pull-through-cache-rules | larder rules import -
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
			rules, err := im.read(cmd, o, args)
			if err != nil {
				return err
			}
			if im.add {
				return o.appendRules(rules)
			}
			text, err := ecrrules.TOML(rules)
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

// read reads the rules from the file, from stdin or from the account.
func (im rulesImport) read(cmd *cobra.Command, o *options, args []string) ([]remotes.Rule, error) {
	if len(args) == 0 {
		cfg, err := im.load(cmd.Context(), im.region, im.profile)
		if err != nil {
			return nil, err
		}
		return ecrrules.Describe(cmd.Context(), cfg)
	}
	name, in := "stdin", cmd.InOrStdin()
	if args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return nil, err
		}
		defer f.Close()
		name, in = args[0], f
	}
	list, err := ecrrules.Decode(in)
	if err != nil {
		return nil, eachPrefixed(name, err)
	}
	if len(list.Rules) == 0 {
		fmt.Fprintf(o.stderr, "warning: %s: there are no rules in it\n", name)
	}
	if list.More {
		fmt.Fprintf(o.stderr, "warning: %s: the list goes on (nextToken), the account has further rules\n", name)
	}
	return list.Rules, nil
}

// appendRules adds those rules to the configuration file whose prefix is not
// there yet.
func (o *options) appendRules(rules []remotes.Rule) error {
	cfg, err := o.loadConfig()
	if err != nil {
		return err
	}
	there := map[string]remotes.Rule{}
	for _, r := range rulesOf(cfg) {
		there[prefixOf(r)] = r
	}
	var add []remotes.Rule
	for _, r := range rules {
		if old, ok := there[prefixOf(r)]; ok {
			fmt.Fprintf(o.stdout, "%-8s %s (%s)\n", "skipped", r.ECRRepositoryPrefix, whySkipped(old, r))
			continue
		}
		add = append(add, r)
	}
	file := cmp.Or(o.configPath, config.DefaultPath)
	if len(add) == 0 {
		_, err := fmt.Fprintf(o.stdout, "%s: nothing to add\n", file)
		return err
	}
	text, err := ecrrules.TOML(add)
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
	for _, r := range add {
		fmt.Fprintf(o.stdout, "%-8s %s -> %s\n", "added", r.ECRRepositoryPrefix, r.UpstreamRegistryURL)
	}
	_, err = fmt.Fprintf(o.stdout, "%s: %s added; larder rules validate asks the upstreams, a running daemon takes them at its next start\n", file, english.Plural(len(add), "rule", ""))
	return err
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
