package remotes

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

// Validator tells whether rules work, as ECR's ValidatePullThroughCacheRule
// does: it asks their upstreams.
type Validator struct {
	Pool   *upstream.Pool
	Routes Routes
	// Credentials are those of the Pool; nil if it has none.
	Credentials upstream.Credentials
}

// Validate returns nil if the rule's own credential, where it has one, can be
// read, and every upstream of its route is reached, is a registry, and takes
// who asks. Otherwise it returns all that is wrong.
func (v Validator) Validate(ctx context.Context, r Rule) error {
	endpoints, err := r.upstreams(v.Routes)
	if err != nil {
		return err
	}
	// A repository that needs not exist, below the rule's prefix: there its
	// credential holds.
	repository, _ := r.rewrite(r.prefix() + "larder/validate")
	var errs []error
	for _, ep := range endpoints {
		// The registry may not ask for a credential: it is looked at first.
		if err := v.credential(ctx, r, ep, repository); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, v.Pool.Client(ep).Ping(ctx, repository))
	}
	return errors.Join(errs...)
}

// credential reads the credential of a rule that names one.
func (v Validator) credential(ctx context.Context, r Rule, ep upstream.Endpoint, repository string) error {
	if v.Credentials == nil || r.CredentialFile == "" && r.CredentialARN == "" && r.CustomRoleARN == "" {
		return nil
	}
	if ep.Prefix != "" {
		repository = ep.Prefix + "/" + repository
	}
	cred, err := v.Credentials.Credential(ctx, ep.Host, repository)
	if err != nil {
		return fmt.Errorf("credential for %s: %w", ep, err)
	}
	if cred.IsZero() {
		return fmt.Errorf("credential for %s: the rule names one and none was found: %w", ep, errdefs.ErrNotFound)
	}
	return nil
}
