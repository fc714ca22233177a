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
// who asks. Otherwise it returns what is wrong, of all upstreams; without its
// credential none is asked.
func (v Validator) Validate(ctx context.Context, r Rule) error {
	host, err := ParseHost(r.UpstreamRegistryURL)
	if err != nil {
		return err
	}
	// A repository that needs not exist, below the rule's prefix: there its
	// credential holds.
	repository, _ := r.rewrite(r.prefix() + "larder/validate")
	if err := v.credential(ctx, r, host, repository); err != nil {
		return err
	}
	var errs []error
	for _, ep := range v.Routes.For(host) {
		errs = append(errs, v.Pool.Client(ep).Ping(ctx, repository))
	}
	return errors.Join(errs...)
}

// credential reads the credential of a rule that names one: the registry may
// never ask for it. It is for the rule's host, whatever its route is.
func (v Validator) credential(ctx context.Context, r Rule, host, repository string) error {
	if v.Credentials == nil || r.CredentialFile == "" && r.CredentialARN == "" && r.CustomRoleARN == "" {
		return nil
	}
	host = Routes{}.For(host)[0].Host
	cred, err := v.Credentials.Credential(ctx, host, repository)
	if err != nil {
		return err // it names host and source
	}
	if cred.IsZero() {
		return fmt.Errorf("credential for %s: the rule names one and none was found: %w", host, errdefs.ErrNotFound)
	}
	return nil
}
