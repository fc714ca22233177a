package main

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/cmd/larder/ecrrules"
	"github.com/larder-project/larder/remotes"
)

// newRulesCommand returns the verb for pull through cache rules.
func newRulesCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "See, try and move pull through cache rules",
		Long: `A rule maps a prefix of repository names to an upstream registry, as in Amazon
ECR's pull through cache. None of these verbs needs the daemon: they read the
configuration.`,
		Example: `  larder rules ls
  larder rules test localhost/docker-hub/library/nginx:1.29
  larder rules validate
  larder rules import --region eu-central-1 --append
  larder rules export --as terraform`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(
		newRulesListCommand(o), newRulesTryCommand(o), newRulesValidateCommand(o),
		newRulesImportCommand(o, ecrrules.LoadAWS), newRulesExportCommand(o),
	)
	return cmd
}

// ruleJSON is a rule with ECR's names, and larder's own beside them.
type ruleJSON struct {
	ecrrules.Entry
	CredentialFile string       `json:"credentialFile,omitempty"`
	Credential     string       `json:"credential"` // file, arn, role or none
	Origin         string       `json:"origin"`     // config or built-in
	Settings       settingsJSON `json:"settings,omitzero"`
}

// settingsJSON are a rule's settings as far as it says something.
type settingsJSON struct {
	Mode               remotes.Mode    `json:"mode,omitempty"`
	Private            remotes.Privacy `json:"private,omitempty"`
	Window             string          `json:"window,omitempty"`
	Deleted            string          `json:"deleted,omitempty"`
	ImageTagMutability string          `json:"imageTagMutability,omitempty"`
	ExclusionFilters   []string        `json:"imageTagMutabilityExclusionFilters,omitempty"`
	Allow              []string        `json:"allow,omitempty"`
	Deny               []string        `json:"deny,omitempty"`
}

func (s ruleSet) json(r remotes.Rule) ruleJSON {
	j := ruleJSON{Entry: ecrrules.EntryOf(r), CredentialFile: r.CredentialFile, Credential: credentialOf(r), Origin: s.origin(r)}
	if j.UpstreamRepositoryPrefix == "" {
		j.UpstreamRepositoryPrefix = remotes.Root
	}
	j.Settings = settingsJSON{
		Mode: r.Settings.Mode, Private: r.Settings.Private, Deleted: r.Settings.Deleted,
		ImageTagMutability: r.Settings.ImageTagMutability, ExclusionFilters: r.Settings.ImageTagMutabilityExclusionFilters,
		Allow: r.Settings.Allow, Deny: r.Settings.Deny,
	}
	if w := r.Settings.Window; w != nil {
		j.Settings.Window = config.Duration(*w).String()
	}
	return j
}

func (s ruleSet) origin(r remotes.Rule) string {
	if s.isBuiltin(r) {
		return "built-in"
	}
	return "config"
}

// credentialOf says where the rule's own credential is, not what it is.
func credentialOf(r remotes.Rule) string {
	switch {
	case r.CredentialFile != "":
		return "file"
	case r.CredentialARN != "":
		return "arn"
	case r.CustomRoleARN != "":
		return "role"
	}
	return "none"
}

// one returns the rule of a prefix.
func (s ruleSet) one(prefix string) (remotes.Rule, error) {
	var all []string
	for _, r := range s.All() {
		if prefixOf(r) == strings.TrimSuffix(prefix, "/") {
			return r, nil
		}
		all = append(all, prefixOf(r))
	}
	return remotes.Rule{}, fmt.Errorf("no rule has the prefix %q, there are: %s: %w", prefix, orDash(strings.Join(all, ", ")), errdefs.ErrNotFound)
}

// completePrefixes completes prefixes of rules in a shell. It stays silent if
// the configuration is broken.
func (o *options) completePrefixes(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	_, set, err := o.loadRules()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var all []string
	for _, r := range set.All() {
		all = append(all, cobra.CompletionWithDesc(prefixOf(r), r.UpstreamRegistryURL))
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}
