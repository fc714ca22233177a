package config

import (
	"time"

	"github.com/larder-project/larder/remotes"
)

// Remote is the rule as package remotes takes it.
func (r Rule) Remote() remotes.Rule {
	return remotes.Rule{
		ECRRepositoryPrefix:      r.ECRRepositoryPrefix,
		UpstreamRegistryURL:      r.UpstreamRegistryURL,
		UpstreamRegistry:         r.UpstreamRegistry,
		UpstreamRepositoryPrefix: r.UpstreamRepositoryPrefix,
		CredentialARN:            r.CredentialARN,
		CustomRoleARN:            r.CustomRoleARN,
		RegistryID:               r.RegistryID,
		CredentialFile:           string(r.CredentialFile),
		Settings:                 r.Settings.Remote(),
	}
}

// Remote is the template as package remotes takes it.
func (t Template) Remote() remotes.Template {
	return remotes.Template{Prefix: t.Prefix, Settings: t.Settings.Remote()}
}

// Remote is the settings as package remotes takes them. What a file says is in
// them after Config.ReadPolicies.
func (s Settings) Remote() remotes.Settings {
	return remotes.Settings{
		Mode:                               remotes.Mode(s.Mode),
		Private:                            remotes.Privacy(s.Private),
		Window:                             (*time.Duration)(s.Window),
		Deleted:                            string(s.Deleted),
		ImageTagMutability:                 string(s.ImageTagMutability),
		ImageTagMutabilityExclusionFilters: s.ImageTagMutabilityExclusionFilters,
		Allow:                              texts(s.Allow),
		Deny:                               texts(s.Deny),
		LifecyclePolicy:                    s.LifecyclePolicy,
	}
}

func texts(globs []Glob) []string {
	var all []string
	for _, g := range globs {
		all = append(all, string(g))
	}
	return all
}
