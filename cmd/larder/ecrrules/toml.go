package ecrrules

import (
	"bytes"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
)

// tomlRule is a rule with the keys of larder's configuration.
type tomlRule struct {
	ECRRepositoryPrefix      string `toml:"ecr_repository_prefix"`
	UpstreamRegistryURL      string `toml:"upstream_registry_url"`
	UpstreamRegistry         string `toml:"upstream_registry,omitempty"`
	UpstreamRepositoryPrefix string `toml:"upstream_repository_prefix,omitempty"`
	CredentialARN            string `toml:"credential_arn,omitempty"`
	CustomRoleARN            string `toml:"custom_role_arn,omitempty"`
	RegistryID               string `toml:"registry_id,omitempty"`
	CredentialFile           string `toml:"credential_file,omitempty"`
	tomlSettings
}

// tomlTemplate is a template with the keys of larder's configuration.
type tomlTemplate struct {
	Prefix string `toml:"prefix"`
	tomlSettings
}

// tomlSettings are the keys that both have.
type tomlSettings struct {
	Mode               string           `toml:"mode,omitempty"`
	Private            string           `toml:"private,omitempty"`
	Window             *config.Duration `toml:"window,omitempty"`
	Deleted            string           `toml:"deleted,omitempty"`
	ImageTagMutability string           `toml:"image_tag_mutability,omitempty"`
	ExclusionFilters   []string         `toml:"image_tag_mutability_exclusion_filters,omitempty"`
	Allow              []string         `toml:"allow,omitempty"`
	Deny               []string         `toml:"deny,omitempty"`
	LifecyclePolicy    string           `toml:"lifecycle_policy,omitempty"`
}

func newTOMLRule(r remotes.Rule) tomlRule {
	t := tomlRule{
		ECRRepositoryPrefix: r.ECRRepositoryPrefix,
		UpstreamRegistryURL: r.UpstreamRegistryURL,
		UpstreamRegistry:    r.UpstreamRegistry,
		CredentialARN:       r.CredentialARN,
		CustomRoleARN:       r.CustomRoleARN,
		RegistryID:          r.RegistryID,
		CredentialFile:      r.CredentialFile,
		tomlSettings:        newTOMLSettings(r.Settings),
	}
	if r.UpstreamRepositoryPrefix != remotes.Root { // the default
		t.UpstreamRepositoryPrefix = r.UpstreamRepositoryPrefix
	}
	return t
}

func newTOMLSettings(s remotes.Settings) tomlSettings {
	return tomlSettings{
		Mode:               string(s.Mode),
		Private:            string(s.Private),
		Window:             (*config.Duration)(s.Window),
		Deleted:            s.Deleted,
		ImageTagMutability: s.ImageTagMutability,
		ExclusionFilters:   s.ImageTagMutabilityExclusionFilters,
		Allow:              s.Allow,
		Deny:               s.Deny,
		LifecyclePolicy:    s.LifecyclePolicy,
	}
}

// TOML returns rules and templates as [[rules]] and [[templates]] of larder's
// configuration: text that can stand at the end of a file.
func TOML(rules []remotes.Rule, templates []remotes.Template) ([]byte, error) {
	var tables []any
	for _, r := range rules {
		tables = append(tables, map[string][]tomlRule{"rules": {newTOMLRule(r)}})
	}
	for _, t := range templates {
		tables = append(tables, map[string][]tomlTemplate{"templates": {{t.Prefix, newTOMLSettings(t.Settings)}}})
	}
	var text bytes.Buffer
	for i, table := range tables {
		data, err := toml.Marshal(table)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			text.WriteByte('\n')
		}
		text.WriteString(doubleQuotes(string(data)))
	}
	return text.Bytes(), nil
}

// doubleQuotes turns the encoder's 'text' into the "text" of larder's
// documentation, in lines that hold neither a double quote nor a backslash:
// there every apostrophe is the encoder's.
func doubleQuotes(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if !strings.ContainsAny(line, `"\`) {
			lines[i] = strings.ReplaceAll(line, `'`, `"`)
		}
	}
	return strings.Join(lines, "\n")
}
