package ecrrules

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes"
)

// Format is a form in which an AWS account takes rules.
type Format string

// The formats.
const (
	FormatCLI            Format = "aws-cli"
	FormatTerraform      Format = "terraform"
	FormatCloudFormation Format = "cloudformation"
	FormatJSON           Format = "json" // what DescribePullThroughCacheRules says
)

// Formats lists all of them.
func Formats() []Format {
	return []Format{FormatCLI, FormatTerraform, FormatCloudFormation, FormatJSON}
}

// maxAccountRules is how many rules ECR allows an account and region (user
// guide, service quotas).
const maxAccountRules = 50

// Export writes rules and templates, which are valid, as ECR's. Warnings name
// each that ECR does not take and is left out, and each key that it has no place
// for; they are comments in the text, too, where the format has comments. A
// format that is none is errdefs.ErrInvalidArgument.
func Export(rules []remotes.Rule, templates []remotes.Template, as Format) (text []byte, warnings []string, err error) {
	var items []item
	exported := 0
	for _, r := range rules {
		it := plan(r, as)
		items = append(items, it)
		if !it.left {
			exported++
		}
		warnings = append(warnings, it.notes...)
	}
	var more []templateItem
	for _, t := range templates {
		it := planTemplate(t)
		more = append(more, it)
		warnings = append(warnings, it.notes...)
	}
	if exported > maxAccountRules {
		warnings = append(warnings, fmt.Sprintf("%d rules: ECR takes %d for an account and region", exported, maxAccountRules))
	}
	switch as {
	case FormatCLI:
		text = writeCLI(items, more)
	case FormatTerraform:
		text = writeTerraform(items, more)
	case FormatCloudFormation:
		text, err = writeCloudFormation(items, more)
	case FormatJSON:
		text, err = writeJSON(items, more)
	default:
		err = fmt.Errorf("format %q: want %s: %w", as, formatList(), errdefs.ErrInvalidArgument)
	}
	return text, warnings, err
}

func formatList() string {
	var names []string
	for _, f := range Formats() {
		names = append(names, string(f))
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// notable is something of which not all can be exported.
type notable struct {
	title string
	left  bool // out
	notes []string
}

// note adds a note of one line: what others wrote is quoted in it.
func (n *notable) note(format string, args ...any) {
	n.notes = append(n.notes, n.title+": "+fmt.Sprintf(format, args...))
}

// item is what is made of one rule.
type item struct {
	Entry
	notable
}

// plan decides what is exported of a rule.
func plan(r remotes.Rule, as Format) item {
	it := item{Entry: EntryOf(r), notable: notable{title: fmt.Sprintf("rule %q", r.ECRRepositoryPrefix)}}
	if it.UpstreamRepositoryPrefix == remotes.Root {
		it.UpstreamRepositoryPrefix = "" // the default
	}
	it.UpstreamRegistryURL = strings.ToLower(it.UpstreamRegistryURL)
	kind := it.UpstreamRegistry
	switch {
	case kind == "" || kind == "ecr" && strings.Contains(it.UpstreamRegistryURL, ":"):
		it.left = true
		it.note("left out: ECR has no upstream %q", r.UpstreamRegistryURL)
		return it
	case kind != "ecr" && it.UpstreamRepositoryPrefix != "":
		it.left = true
		it.note("left out: ECR takes upstream_repository_prefix (%q) with a private ECR upstream only", r.UpstreamRepositoryPrefix)
		return it
	case kind == "docker-hub":
		it.UpstreamRegistryURL = "registry-1.docker.io"
	}
	if it.CustomRoleARN != "" && kind != "ecr" {
		it.CustomRoleARN = ""
		it.note("without custom_role_arn: ECR takes it with a private ECR upstream only")
	}
	if it.RegistryID != "" && (as == FormatTerraform || as == FormatCloudFormation) {
		it.note("without registry_id (%q): %s makes the rule in the account it is applied to", it.RegistryID, as)
	}
	if own := ownKeys(r); len(own) > 0 {
		it.note("without %s, which only larder has", strings.Join(own, ", "))
	}
	if r.Settings.ImageTagMutability != "" {
		it.note("without image_tag_mutability: ECR has it in a repository creation template")
	}
	if r.Settings.LifecyclePolicy != "" {
		it.note("without lifecycle_policy: ECR has it in a repository creation template")
	}
	if it.CredentialARN == "" && wantsCredential(kind) {
		it.note("ECR wants a credential for %s: %s", kind, credentialHint(r))
	}
	return it
}

// ownKeys are the keys of a rule that ECR has nothing for.
func ownKeys(r remotes.Rule) []string {
	s := r.Settings
	var keys []string
	for _, k := range []struct {
		name string
		set  bool
	}{
		{"credential_file", r.CredentialFile != ""},
		{"mode", s.Mode != ""},
		{"private", s.Private != ""},
		{"window", s.Window != nil},
		{"deleted", s.Deleted != ""},
		{"allow", len(s.Allow) > 0},
		{"deny", len(s.Deny) > 0},
	} {
		if k.set {
			keys = append(keys, k.name)
		}
	}
	return keys
}

// wantsCredential reports whether ECR makes no rule for this kind of upstream
// without a secret (user guide, "Creating a pull through cache rule").
func wantsCredential(kind string) bool {
	switch kind {
	case "docker-hub", "github-container-registry", "azure-container-registry", "gitlab-container-registry", "chainguard":
		return true
	}
	return false
}

func credentialHint(r remotes.Rule) string {
	secret := "a Secrets Manager secret named ecr-pullthroughcache/…"
	if r.CredentialFile != "" {
		return fmt.Sprintf("put the content of %q into %s and add its ARN", r.CredentialFile, secret)
	}
	return "make " + secret + " and add its ARN"
}
