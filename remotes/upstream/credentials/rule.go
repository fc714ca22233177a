package credentials

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

// Bounds and pattern of a secret's ARN: ECR API model, shape CredentialArn.
const (
	minSecretARN = 50
	maxSecretARN = 612
)

var secretARN = regexp.MustCompile(`^arn:aws(-\w+)*:secretsmanager:[a-zA-Z0-9-:]+:secret:ecr-pullthroughcache/[a-zA-Z0-9/_+=.@-]+$`)

// maxRoleARN bounds a role's ARN: ECR API model, shape CustomRoleArn.
const maxRoleARN = 2048

// Rule says where the credential for an upstream's repositories is. It has one
// of File, ARN and RoleARN.
type Rule struct {
	// Host is the upstream's registry host; all of Docker Hub's names are one.
	Host string
	// Prefix is the path below which the repositories are, at the upstream.
	// Empty means all. Of several rules the longest prefix holds.
	Prefix string
	// File is the absolute path of a file with ECR's secret:
	// {"username":…,"accessToken":…}, at most 64 KiB. It is read for each
	// use, so it may change at any time.
	File string
	// ARN is the AWS Secrets Manager secret with the same content.
	ARN string
	// RoleARN is the IAM role to assume for an upstream that is a private ECR
	// registry.
	RoleARN string
}

// source is what the rule names, for the comparison of two rules.
func (r Rule) source() [3]string { return [3]string{r.File, r.ARN, r.RoleARN} }

// sourceText is the source as the configuration has it.
func (r Rule) sourceText() string {
	switch {
	case r.File != "":
		return "credential_file " + r.File
	case r.ARN != "":
		return "credential_arn " + r.ARN
	}
	return "custom_role_arn " + r.RoleARN
}

// validate returns all problems, each naming ECR's or larder's key.
func (r Rule) validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("rule for %s: %s: %w", r.name(), fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument))
	}
	if _, err := newQuery(r.Host, cmp.Or(strings.Trim(r.Prefix, "/"), "probe")); err != nil {
		bad("want a registry host and a repository path")
	}
	named := 0
	for _, s := range r.source() {
		if s != "" {
			named++
		}
	}
	if named != 1 {
		bad("has %d of credential_file, credential_arn and custom_role_arn, want one", named)
	}
	if r.File != "" && !filepath.IsAbs(r.File) {
		bad("credential_file: %q: want an absolute path", r.File)
	}
	if n := len(r.ARN); n > 0 && (n < minSecretARN || n > maxSecretARN || !secretARN.MatchString(r.ARN) || regionOf(r.ARN) == "") {
		bad("credential_arn: %q: want the ARN of a Secrets Manager secret whose name begins with ecr-pullthroughcache/", cut(r.ARN))
	}
	if r.RoleARN != "" {
		if a, err := arn.Parse(r.RoleARN); err != nil || len(r.RoleARN) > maxRoleARN || a.Service != "iam" || !strings.HasPrefix(a.Resource, "role/") {
			bad("custom_role_arn: %q: want the ARN of an IAM role", cut(r.RoleARN))
		}
		if reg, ok := upstream.ParseECRHost(canonical(r.Host)); !ok || reg.Public {
			bad("custom_role_arn: the upstream is no private ECR registry, nothing else takes a role")
		}
	}
	return errors.Join(errs...)
}

// name is the rule's upstream as an error shows it.
func (r Rule) name() string { return cut(strings.TrimSuffix(r.Host+"/"+r.Prefix, "/")) }

// regionOf is the region that an ARN names, "" if it is not one.
func regionOf(s string) string {
	a, err := arn.Parse(s)
	if err != nil || strings.ContainsAny(a.Region, "/:") {
		return ""
	}
	return a.Region
}

// rules are sorted: the longest prefix first.
type rules []Rule

// newRules checks rules. Two of one prefix must name one source.
func newRules(all []Rule) (rules, error) {
	type place struct{ host, prefix string }
	var errs []error
	var rs rules
	first := map[place]Rule{}
	for _, r := range all {
		errs = append(errs, r.validate())
		r.Host, r.Prefix = canonical(r.Host), strings.Trim(r.Prefix, "/")
		at := place{r.Host, r.Prefix}
		switch other, taken := first[at]; {
		case !taken:
			first[at] = r
			rs = append(rs, r)
		case other.source() != r.source():
			errs = append(errs, fmt.Errorf("two rules name different credentials for the same repositories of %s: %s, and %s; give both the same, or one an upstream_repository_prefix of its own: %w",
				r.name(), other.sourceText(), r.sourceText(), errdefs.ErrInvalidArgument))
		}
	}
	slices.SortStableFunc(rs, func(a, b Rule) int { return cmp.Compare(len(b.Prefix), len(a.Prefix)) })
	return rs, errors.Join(errs...)
}

// match returns the rule of a repository, the zero Rule if there is none.
func (rs rules) match(q query) Rule {
	for _, r := range rs {
		if r.Host == q.host && (r.Prefix == "" || q.repository == r.Prefix || strings.HasPrefix(q.repository, r.Prefix+"/")) {
			return r
		}
	}
	return Rule{}
}
