package remotes

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Root is ECR's keyword for "no prefix", in both prefixes of a rule.
const Root = "ROOT"

// Bounds and pattern of a rule's prefixes: ECR API model, shape
// PullThroughCacheRuleRepositoryPrefix.
const (
	minPrefixLength = 2
	maxPrefixLength = 30
	prefixText      = `^([a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*\/?|ROOT)$`
)

var prefixPattern = regexp.MustCompile(prefixText)

// Rule is an ECR pull through cache rule: repositories below a prefix are
// fetched from an upstream registry. Field names and bounds are ECR's
// (API reference, PullThroughCacheRule).
type Rule struct {
	// ECRRepositoryPrefix is the local prefix, 2 to 30 characters, or ROOT.
	// One trailing slash is allowed and means nothing.
	ECRRepositoryPrefix string
	// UpstreamRegistryURL is the upstream's host, without a scheme. Unlike
	// ECR, larder takes any OCI registry.
	UpstreamRegistryURL string
	// UpstreamRegistry is ECR's name for the kind of upstream. Empty means:
	// inferred from the host.
	UpstreamRegistry string
	// UpstreamRepositoryPrefix is put before the rest of the name upstream.
	// Empty means ROOT: nothing.
	UpstreamRepositoryPrefix string
	// CredentialARN is the AWS Secrets Manager secret that holds the
	// upstream's credential as ECR keeps it.
	CredentialARN string
	// CustomRoleARN is the IAM role that is assumed for an upstream that is a
	// private ECR registry.
	CustomRoleARN string
	// RegistryID is the AWS account whose registry the rule belongs to. On
	// ECR registry hosts of other accounts it does not hold. Empty: of any.
	RegistryID string
	// CredentialFile is the path of a file with the content of such a secret:
	// larder's own.
	CredentialFile string
	// Settings hold for the repositories below the prefix: larder's own, too.
	Settings Settings
}

// Validate returns every problem of the rule, each naming its field and what
// was wanted, wrapping errdefs.ErrInvalidArgument.
func (r Rule) Validate() error {
	problems := []error{
		validatePrefix("ecr_repository_prefix", r.ECRRepositoryPrefix),
		r.validateUpstream(),
	}
	if r.UpstreamRepositoryPrefix != "" {
		problems = append(problems, validatePrefix("upstream_repository_prefix", r.UpstreamRepositoryPrefix))
	}
	if r.ECRRepositoryPrefix == Root && r.UpstreamRepositoryPrefix != "" && r.UpstreamRepositoryPrefix != Root {
		problems = append(problems, fmt.Errorf("upstream_repository_prefix: %q cannot go with ecr_repository_prefix = %q: %w",
			r.UpstreamRepositoryPrefix, Root, errdefs.ErrInvalidArgument))
	}
	return errors.Join(problems...)
}

func (r Rule) validateUpstream() error {
	if strings.Contains(r.UpstreamRegistryURL, "://") && !strings.ContainsAny(r.UpstreamRegistryURL, "@?#") {
		return fmt.Errorf("upstream_registry_url: %q: want a host without a scheme; a [[routes]] entry sets scheme and address: %w",
			r.UpstreamRegistryURL, errdefs.ErrInvalidArgument)
	}
	host, err := ParseHost(r.UpstreamRegistryURL)
	if err != nil {
		return fmt.Errorf("upstream_registry_url: %w", err)
	}
	if r.UpstreamRegistry == "" {
		return nil
	}
	if !slices.Contains(registryKinds(), r.UpstreamRegistry) {
		return fmt.Errorf("upstream_registry: %q: want one of %s: %w",
			r.UpstreamRegistry, strings.Join(registryKinds(), ", "), errdefs.ErrInvalidArgument)
	}
	if kind := registryKind(host); kind != r.UpstreamRegistry {
		return fmt.Errorf("upstream_registry: %q does not fit upstream_registry_url %q: %w",
			r.UpstreamRegistry, r.UpstreamRegistryURL, errdefs.ErrInvalidArgument)
	}
	return nil
}

func validatePrefix(field, prefix string) error {
	if n := len(prefix); n < minPrefixLength || n > maxPrefixLength {
		return fmt.Errorf("%s: %q has %d characters, want %d to %d: %w", field, prefix, n, minPrefixLength, maxPrefixLength, errdefs.ErrInvalidArgument)
	}
	if !prefixPattern.MatchString(prefix) {
		return fmt.Errorf("%s: %q must match %s: %w", field, prefix, prefixText, errdefs.ErrInvalidArgument)
	}
	return nil
}

// prefix is the local prefix as matched: "" for ROOT, else ending in a slash,
// since ECR assumes one at the end of every prefix.
func (r Rule) prefix() string {
	if r.ECRRepositoryPrefix == Root {
		return ""
	}
	return strings.TrimSuffix(r.ECRRepositoryPrefix, "/") + "/"
}

// rewrite maps a local repository path to the upstream's. It reports false
// for a path that is not below the rule's prefix.
func (r Rule) rewrite(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, r.prefix())
	if !ok || rest == "" {
		return "", false
	}
	if r.UpstreamRepositoryPrefix != "" && r.UpstreamRepositoryPrefix != Root {
		rest = strings.TrimSuffix(r.UpstreamRepositoryPrefix, "/") + "/" + rest
	}
	return rest, true
}

// Rules chooses among rules as ECR does: the longest prefix wins, aligned to
// path segments, ROOT last.
type Rules struct {
	sorted []Rule
}

// NewRules checks rules and adds the built-in ones whose prefix none of them
// takes, if builtin is set. Two rules with one prefix are an error.
func NewRules(rules []Rule, builtin bool) (Rules, error) {
	all := slices.Clone(rules)
	seen := map[string]bool{}
	for _, r := range all {
		if err := r.Validate(); err != nil {
			return Rules{}, err
		}
		if seen[r.prefix()] {
			return Rules{}, fmt.Errorf("ecr_repository_prefix: %q stands in two rules: %w", r.ECRRepositoryPrefix, errdefs.ErrAlreadyExists)
		}
		seen[r.prefix()] = true
	}
	if builtin {
		for _, r := range BuiltinRules() {
			if !seen[r.prefix()] {
				all = append(all, r)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Rule) int { return cmp.Compare(len(b.prefix()), len(a.prefix())) })
	return Rules{sorted: all}, nil
}

// Map returns the upstream repository of a local path, and the rule that
// says so. It returns errdefs.ErrNotFound if no rule covers the path.
func (rs Rules) Map(path string) (Repository, Rule, error) {
	for _, r := range rs.sorted {
		rest, ok := r.rewrite(path)
		if !ok {
			continue
		}
		repo, err := NewRepository(r.UpstreamRegistryURL, rest)
		return repo, r, err
	}
	return Repository{}, Rule{}, fmt.Errorf("repository %q: no rule covers it; begin with a rule's prefix (docker-hub, quay, …) or add a [[rules]] entry: %w", path, errdefs.ErrNotFound)
}

// All returns the rules in the order in which they are tried.
func (rs Rules) All() []Rule { return slices.Clone(rs.sorted) }
