package ecrrules

import (
	"fmt"
	"regexp"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes"
)

// Entry is a rule with ECR's JSON names (API reference, PullThroughCacheRule).
type Entry struct {
	ECRRepositoryPrefix      string `json:"ecrRepositoryPrefix"`
	UpstreamRegistryURL      string `json:"upstreamRegistryUrl"`
	UpstreamRegistry         string `json:"upstreamRegistry,omitempty"`
	UpstreamRepositoryPrefix string `json:"upstreamRepositoryPrefix,omitempty"`
	CredentialARN            string `json:"credentialArn,omitempty"`
	CustomRoleARN            string `json:"customRoleArn,omitempty"`
	RegistryID               string `json:"registryId,omitempty"`
}

// EntryOf returns what ECR knows of a rule.
func EntryOf(r remotes.Rule) Entry {
	return Entry{
		ECRRepositoryPrefix:      r.ECRRepositoryPrefix,
		UpstreamRegistryURL:      r.UpstreamRegistryURL,
		UpstreamRegistry:         r.Kind(),
		UpstreamRepositoryPrefix: r.UpstreamRepositoryPrefix,
		CredentialARN:            r.CredentialARN,
		CustomRoleARN:            r.CustomRoleARN,
		RegistryID:               r.RegistryID,
	}
}

// rule is the entry as larder has it.
func (e Entry) rule() remotes.Rule {
	return remotes.Rule{
		ECRRepositoryPrefix:      e.ECRRepositoryPrefix,
		UpstreamRegistryURL:      e.UpstreamRegistryURL,
		UpstreamRegistry:         e.UpstreamRegistry,
		UpstreamRepositoryPrefix: e.UpstreamRepositoryPrefix,
		CredentialARN:            e.CredentialARN,
		CustomRoleARN:            e.CustomRoleARN,
		RegistryID:               e.RegistryID,
	}
}

// Bounds and patterns of ECR's API model, shapes CredentialArn, CustomRoleArn
// and RegistryId. The region's part of an ARN may be of any partition.
var (
	credentialARN = regexp.MustCompile(`^arn:aws(-\w+)*:secretsmanager:[a-zA-Z0-9-:]+:secret:ecr-pullthroughcache/[a-zA-Z0-9/_+=.@-]+$`)
	roleARN       = regexp.MustCompile(`^arn:aws(-\w+)*:iam::\d{12}:role/[\w+=,.@/-]+$`)
	registryID    = regexp.MustCompile(`^[0-9]{12}$`)
)

const (
	minCredentialARN = 50
	maxCredentialARN = 612
	maxRoleARN       = 2048
)

// check returns what ECR itself would not have said.
func (e Entry) check() error {
	if err := e.rule().Validate(); err != nil {
		return err
	}
	switch n := len(e.CredentialARN); {
	case n > 0 && (n < minCredentialARN || n > maxCredentialARN || !credentialARN.MatchString(e.CredentialARN)):
		return invalid("credential_arn: %.80q: want the ARN of a secret whose name begins with ecr-pullthroughcache/", e.CredentialARN)
	case len(e.CustomRoleARN) > maxRoleARN || e.CustomRoleARN != "" && !roleARN.MatchString(e.CustomRoleARN):
		return invalid("custom_role_arn: %.80q: want the ARN of an IAM role", e.CustomRoleARN)
	case e.RegistryID != "" && !registryID.MatchString(e.RegistryID):
		return invalid("registry_id: %.80q: want the 12 digits of an AWS account", e.RegistryID)
	}
	return nil
}

// invalid returns an error of the given text for what was read.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}
