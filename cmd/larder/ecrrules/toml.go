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
	ECRRepositoryPrefix      string           `toml:"ecr_repository_prefix"`
	UpstreamRegistryURL      string           `toml:"upstream_registry_url"`
	UpstreamRegistry         string           `toml:"upstream_registry,omitempty"`
	UpstreamRepositoryPrefix string           `toml:"upstream_repository_prefix,omitempty"`
	CredentialARN            string           `toml:"credential_arn,omitempty"`
	CustomRoleARN            string           `toml:"custom_role_arn,omitempty"`
	RegistryID               string           `toml:"registry_id,omitempty"`
	CredentialFile           string           `toml:"credential_file,omitempty"`
	Mode                     string           `toml:"mode,omitempty"`
	Private                  string           `toml:"private,omitempty"`
	Window                   *config.Duration `toml:"window,omitempty"`
	Deleted                  string           `toml:"deleted,omitempty"`
	ImageTagMutability       string           `toml:"image_tag_mutability,omitempty"`
	ExclusionFilters         []string         `toml:"image_tag_mutability_exclusion_filters,omitempty"`
	Allow                    []string         `toml:"allow,omitempty"`
	Deny                     []string         `toml:"deny,omitempty"`
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
		Mode:                string(r.Settings.Mode),
		Private:             string(r.Settings.Private),
		Window:              (*config.Duration)(r.Settings.Window),
		Deleted:             r.Settings.Deleted,
		ImageTagMutability:  r.Settings.ImageTagMutability,
		ExclusionFilters:    r.Settings.ImageTagMutabilityExclusionFilters,
		Allow:               r.Settings.Allow,
		Deny:                r.Settings.Deny,
	}
	if r.UpstreamRepositoryPrefix != remotes.Root { // the default
		t.UpstreamRepositoryPrefix = r.UpstreamRepositoryPrefix
	}
	return t
}

// TOML returns rules as [[rules]] of larder's configuration: text that can
// stand at the end of a file.
func TOML(rules []remotes.Rule) ([]byte, error) {
	var text bytes.Buffer
	for i, r := range rules {
		data, err := toml.Marshal(map[string][]tomlRule{"rules": {newTOMLRule(r)}})
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
