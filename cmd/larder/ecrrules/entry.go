package ecrrules

import (
	"fmt"

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

// invalid returns an error of the given text for what was read.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}
