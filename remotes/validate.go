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
// credential none is asked. With PrivateVerify, and where no credential is known,
// it is right that the upstream wants one: those who pull bring it.
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
		err := v.Pool.Client(ep).Ping(ctx, repository)
		if errdefs.IsPermissionDenied(err) && r.Settings.Private == PrivateVerify && v.knowsNone(ctx, ep.Host, repository) {
			err = nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// knowsNone reports whether there is no credential for a repository at a host.
func (v Validator) knowsNone(ctx context.Context, host, repository string) bool {
	if v.Credentials == nil {
		return true
	}
	cred, err := v.Credentials.Credential(ctx, host, repository)
	return err == nil && cred.IsZero()
}

// credential reads the credential of a rule that names one: the registry may
// never ask for it. It is for the rule's host, whatever its route is.
func (v Validator) credential(ctx context.Context, r Rule, host, repository string) error {
	if v.Credentials == nil || r.CredentialFile == "" && r.CredentialARN == "" && r.CustomRoleARN == "" {
		return nil
	}
	host = EndpointHost(host)
	cred, err := v.Credentials.Credential(ctx, host, repository)
	if err != nil {
		return fmt.Errorf("credential for %s: %w", host, err)
	}
	if cred.IsZero() {
		return fmt.Errorf("credential for %s: the rule names one and none was found: %w", host, errdefs.ErrNotFound)
	}
	return nil
}
