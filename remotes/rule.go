package remotes

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

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
	// Empty means ROOT: nothing. ECR documents it for upstreams that are ECR
	// registries; larder takes it for any.
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

// Validate returns all Problems of the rule.
func (r Rule) Validate() error { return errors.Join(r.Problems()...) }

// Problems returns every problem of the rule, each naming its field and what
// was wanted, wrapping errdefs.ErrInvalidArgument.
func (r Rule) Problems() []error {
	problems := []error{
		rulePrefix("ecr_repository_prefix", r.ECRRepositoryPrefix),
		r.validateHost(),
		r.validateKind(),
		r.validateUpstreamPrefix(),
		validateCredentialARN(r.CredentialARN),
		r.validateRole(),
		validateAccount("registry_id", r.RegistryID),
	}
	if r.CredentialFile != "" && r.CredentialARN != "" {
		problems = append(problems, fmt.Errorf("credential_file: cannot go with credential_arn, a rule has one credential: %w", errdefs.ErrInvalidArgument))
	}
	return found(append(problems, r.Settings.problems()...))
}

func (r Rule) validateHost() error {
	if strings.Contains(r.UpstreamRegistryURL, "://") && !strings.ContainsAny(r.UpstreamRegistryURL, "@?#") {
		return fmt.Errorf("upstream_registry_url: %q: want a host without a scheme; a [[routes]] entry sets scheme and address: %w",
			r.UpstreamRegistryURL, errdefs.ErrInvalidArgument)
	}
	if _, err := ParseHost(r.UpstreamRegistryURL); err != nil {
		return fmt.Errorf("upstream_registry_url: %w", err)
	}
	return nil
}

func (r Rule) validateKind() error {
	if r.UpstreamRegistry == "" {
		return nil
	}
	if !slices.Contains(registryKinds(), r.UpstreamRegistry) {
		return fmt.Errorf("upstream_registry: %q: want one of %s: %w",
			r.UpstreamRegistry, strings.Join(registryKinds(), ", "), errdefs.ErrInvalidArgument)
	}
	// What is wrong with the host is said of the host.
	if host := r.host(); host != "" && registryKind(host) != r.UpstreamRegistry {
		return fmt.Errorf("upstream_registry: %q does not fit upstream_registry_url %q: %w",
			r.UpstreamRegistry, r.UpstreamRegistryURL, errdefs.ErrInvalidArgument)
	}
	return nil
}

func (r Rule) validateUpstreamPrefix() error {
	if r.UpstreamRepositoryPrefix == "" {
		return nil
	}
	if err := rulePrefix("upstream_repository_prefix", r.UpstreamRepositoryPrefix); err != nil {
		return err
	}
	if r.ECRRepositoryPrefix == Root && r.UpstreamRepositoryPrefix != Root {
		return fmt.Errorf("upstream_repository_prefix: %q cannot go with ecr_repository_prefix = %q: %w",
			r.UpstreamRepositoryPrefix, Root, errdefs.ErrInvalidArgument)
	}
	return nil
}

func (r Rule) validateRole() error {
	if r.CustomRoleARN == "" {
		return nil
	}
	if err := validateRoleARN(r.CustomRoleARN); err != nil {
		return err
	}
	if host := r.host(); host != "" && !IsECRHost(host) {
		return fmt.Errorf("custom_role_arn: goes only with an upstream that is a private ECR registry, and upstream_registry_url is %q: %w",
			r.UpstreamRegistryURL, errdefs.ErrInvalidArgument)
	}
	return nil
}

// host is the canonical registry host of the upstream, "" if it is none.
func (r Rule) host() string {
	host, err := ParseHost(r.UpstreamRegistryURL)
	if err != nil {
		return ""
	}
	return host
}

// prefix is the local prefix as matched: see matchedPrefix.
func (r Rule) prefix() string { return matchedPrefix(r.ECRRepositoryPrefix) }

// upstreamPrefix is what stands before the rest of the name upstream.
func (r Rule) upstreamPrefix() string { return matchedPrefix(r.UpstreamRepositoryPrefix) }

// rewrite maps a local repository path to the upstream's. It reports false
// for a path that is not below the rule's prefix.
func (r Rule) rewrite(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, r.prefix())
	if !ok || rest == "" {
		return "", false
	}
	return r.upstreamPrefix() + rest, true
}

// local is the way back: the path below the rule's prefix that rewrite maps to
// a path upstream. It reports false if there is none.
func (r Rule) local(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, r.upstreamPrefix())
	if !ok || rest == "" {
		return "", false
	}
	return r.prefix() + rest, true
}
