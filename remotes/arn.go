package remotes

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
)

// Bounds and patterns of what a rule names in AWS: ECR API model, shapes
// CredentialArn, CustomRoleArn and RegistryId. The role's pattern is IAM's
// (user guide, "IAM identifiers"): the model has none.
const (
	minCredentialARN  = 50
	maxCredentialARN  = 612
	credentialARNText = `^arn:aws(-\w+)*:secretsmanager:[a-zA-Z0-9-:]+:secret:ecr\-pullthroughcache\/[a-zA-Z0-9\/_+=.@-]+$`
	maxRoleARN        = 2048
	roleARNText       = `^arn:aws(-\w+)*:iam::[0-9]{12}:role/[\w+=,.@/-]+$`
	accountText       = `^[0-9]{12}$`
)

var (
	credentialARNPattern = regexp.MustCompile(credentialARNText)
	roleARNPattern       = regexp.MustCompile(roleARNText)
	accountPattern       = regexp.MustCompile(accountText)
)

// validateCredentialARN checks the name of a secret. Text that is no ARN at
// all may be the secret itself: it is not repeated.
func validateCredentialARN(arn string) error {
	switch n := len(arn); {
	case arn == "":
		return nil
	case !strings.HasPrefix(arn, "arn:"):
		return fmt.Errorf("credential_arn: is no ARN, want the name of a secret in AWS Secrets Manager that must match %s: %w",
			credentialARNText, errdefs.ErrInvalidArgument)
	case n < minCredentialARN || n > maxCredentialARN:
		return fmt.Errorf("credential_arn: %.100q has %d characters, want %d to %d: %w", arn, n, minCredentialARN, maxCredentialARN, errdefs.ErrInvalidArgument)
	case !credentialARNPattern.MatchString(arn):
		return fmt.Errorf("credential_arn: %q must match %s: %w", arn, credentialARNText, errdefs.ErrInvalidArgument)
	}
	return nil
}

func validateRoleARN(arn string) error {
	if n := len(arn); n > maxRoleARN {
		return fmt.Errorf("custom_role_arn: %.100q has %d characters, want at most %d: %w", arn, n, maxRoleARN, errdefs.ErrInvalidArgument)
	}
	if !roleARNPattern.MatchString(arn) {
		return fmt.Errorf("custom_role_arn: %q must match %s: %w", arn, roleARNText, errdefs.ErrInvalidArgument)
	}
	return nil
}

// validateAccount checks the number of an AWS account, if there is one.
func validateAccount(field, id string) error {
	if id != "" && !accountPattern.MatchString(id) {
		return fmt.Errorf("%s: %.100q must match %s: %w", field, id, accountText, errdefs.ErrInvalidArgument)
	}
	return nil
}
