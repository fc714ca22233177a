package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// rulesJSON is what the verbs print: ECR's envelope.
type rulesJSON[T any] struct {
	Rules []T `json:"pullThroughCacheRules"`
}

func newRulesListCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the rules in the order in which they are tried",
		Long: `Lists the rules of the configuration and the built-in ones, in the order in
which they are tried: the longest prefix first, ROOT last. CREDENTIAL says where
the rule's own credential is: in a file, in the secret of an ARN, got with an IAM
role, or nowhere.

With --json the names are those of aws ecr describe-pull-through-cache-rules;
credential, credentialFile, origin and settings are larder's own.`,
		Example: `  larder rules ls
  larder rules ls --json | jq -r '.pullThroughCacheRules[].ecrRepositoryPrefix'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, set, err := o.loadRules()
			if err != nil {
				return err
			}
			if !asJSON {
				return printRules(o.stdout, set)
			}
			out := rulesJSON[ruleJSON]{Rules: []ruleJSON{}}
			for _, r := range set.All() {
				out.Rules = append(out.Rules, set.json(r))
			}
			return o.printJSON(out)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printRules(w io.Writer, set ruleSet) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "PREFIX\tUPSTREAM\tUPSTREAM PREFIX\tKIND\tCREDENTIAL\tFROM")
	for _, r := range set.All() {
		j := set.json(r)
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", j.ECRRepositoryPrefix, j.UpstreamRegistryURL, j.UpstreamRepositoryPrefix,
			orDash(j.UpstreamRegistry), j.Credential, j.Origin)
	}
	return tw.Flush()
}
