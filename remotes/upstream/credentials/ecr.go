package credentials

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

const (
	// publicRegion is the one region that AWS's own clients ask for tokens of
	// the public gallery.
	publicRegion = "us-east-1"
	// publicLimit is how long such a token may take. It is not needed: the
	// gallery can be read without, at a lower limit.
	publicLimit = 3 * time.Second
)

// tokens are ECR's authorization tokens. One is good for all registries that
// its principal may read, so there is one for each role, region and kind of
// endpoint, and not for each registry.
type tokens struct {
	cloud           *cloud
	private, public *memory[upstream.Credential]
}

func newTokens(c *cloud, log *reporter) *tokens {
	return &tokens{
		cloud:   c,
		private: newMemory[upstream.Credential]("ecr", cloudLimit, log),
		public:  newMemory[upstream.Credential]("ecr-public", publicLimit, log),
	}
}

// of returns a token for a registry, got with a role if there is one.
func (t *tokens) of(ctx context.Context, reg upstream.ECRRegistry, role string) (answer, error) {
	m, key := t.private, fmt.Sprintf("%s fips=%v dualstack=%v %s", reg.Region, reg.FIPS, reg.DualStack, role)
	if reg.Public {
		m, key = t.public, "public"
	}
	cred, refuse, err := m.get(ctx, key, func(ctx context.Context) (upstream.Credential, time.Duration, error) {
		cred, life, err := t.ask(ctx, reg, role)
		if err != nil {
			t.cloud.forget()
			return cred, 0, fmt.Errorf("ecr: %w", err)
		}
		return cred, life, nil
	})
	return answer{credential: cred, refuse: refuse}, err
}

func (t *tokens) ask(ctx context.Context, reg upstream.ECRRegistry, role string) (upstream.Credential, time.Duration, error) {
	cfg, err := t.cloud.config(ctx)
	if err != nil {
		return upstream.Credential{}, 0, err
	}
	cfg.Region = reg.Region
	if reg.Public {
		cfg.Region = publicRegion
	}
	if role != "" {
		cfg = assume(cfg, role)
	}
	token, expires, err := getToken(ctx, cfg, reg)
	if err != nil {
		return upstream.Credential{}, 0, fmt.Errorf("GetAuthorizationToken in %s: %w", cfg.Region, cloudError(err))
	}
	cred, err := parseToken(token)
	return cred, max(time.Until(aws.ToTime(expires)), leastLife), err
}

// getToken asks the API that belongs to a registry. It names no registry:
// ECR's registryIds is deprecated, and tokens do not depend on it.
func getToken(ctx context.Context, cfg aws.Config, reg upstream.ECRRegistry) (token *string, expires *time.Time, err error) {
	if reg.Public {
		out, err := ecrpublic.NewFromConfig(cfg).GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
		if err != nil || out.AuthorizationData == nil {
			return nil, nil, err
		}
		return out.AuthorizationData.AuthorizationToken, out.AuthorizationData.ExpiresAt, nil
	}
	client := ecr.NewFromConfig(cfg, func(o *ecr.Options) {
		if o.BaseEndpoint != nil {
			return // AWS_ENDPOINT_URL… says where; the SDK refuses it with these
		}
		if reg.FIPS {
			o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
		}
		if reg.DualStack {
			o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
		}
	})
	out, err := client.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil || len(out.AuthorizationData) == 0 {
		return nil, nil, err
	}
	return out.AuthorizationData[0].AuthorizationToken, out.AuthorizationData[0].ExpiresAt, nil
}

// parseToken takes a token apart: base64 of user:password.
func parseToken(token *string) (upstream.Credential, error) {
	text, err := base64.StdEncoding.DecodeString(aws.ToString(token))
	user, password, ok := bytes.Cut(text, []byte(":"))
	if err != nil || !ok || len(user) == 0 || len(password) == 0 {
		return upstream.Credential{}, fmt.Errorf("AWS gave a token that is not base64 of user:password: %w", errdefs.ErrInvalidArgument)
	}
	return upstream.Credential{Username: string(user), Secret: string(password)}, nil
}

// node is ECR with larder's own identity, for every registry of ECR.
type node struct {
	tokens *tokens
	log    *reporter
}

// find implements source.
func (s *node) find(ctx context.Context, q query) (answer, error) {
	reg, ok := upstream.ParseECRHost(q.host)
	if !ok {
		return answer{}, nil
	}
	a, err := s.tokens.of(ctx, reg, "")
	_, none := errors.AsType[*noneError](err)
	switch {
	case err == nil || ctx.Err() != nil:
		return a, err
	case reg.Public && !none:
		// All may read the gallery; a node that may not get a token there, or
		// does not reach us-east-1, still pulls.
		s.log.warn("public "+err.Error(), "no token for ECR Public, larder pulls anonymously from it", "upstream", q.host, "err", err)
		return answer{}, nil
	case none && !reg.Public:
		s.log.warn("none "+q.host, "no AWS credentials for ECR, larder pulls anonymously from it", "upstream", q.host, "err", err)
	}
	return answer{}, err
}

// roles is ECR with the roles that rules name.
type roles struct {
	rules  rules
	tokens *tokens
}

// find implements source.
func (s *roles) find(ctx context.Context, q query) (answer, error) {
	role := s.rules.match(q).RoleARN
	reg, ok := upstream.ParseECRHost(q.host)
	if role == "" || !ok {
		return answer{}, nil
	}
	a, err := s.tokens.of(ctx, reg, role)
	if err != nil {
		return answer{}, fmt.Errorf("custom_role_arn %s: %w", role, err)
	}
	return a, nil
}
