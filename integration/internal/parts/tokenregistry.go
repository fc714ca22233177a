package parts

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// TokenRegistry is a distribution registry that believes the tokens of one
// TokenServer, and a Meter in front of it.
type TokenRegistry struct {
	*Meter
	Tokens   *TokenServer
	registry *Registry
}

const tokenAuth = `auth:
  token: {realm: %q, service: %q, issuer: %q, %s}
`

// TokenService is the service that the registry names in its challenge.
const TokenService = "registry.test"

// StartTokenRegistry runs both, the registry with its files under dir.
func StartTokenRegistry(ctx context.Context, bin Bin, dir string, opts TokenOptions) (*TokenRegistry, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("token registry: %w", err)
	}
	tokens, err := startTokenServer(dir, opts)
	if err != nil {
		return nil, err
	}
	r := &TokenRegistry{Tokens: tokens}
	r.registry, err = startRegistry(ctx, bin, dir, fmt.Sprintf(tokenAuth, tokens.Realm(), TokenService, tokenIssuer, tokens.signer.trust))
	if err != nil {
		return nil, errors.Join(err, tokens.Close())
	}
	if r.Meter, err = NewMeter(r.registry.URL); err != nil {
		return nil, errors.Join(err, r.registry.Close(), tokens.Close())
	}
	return r, nil
}

// Log is the registry's log so far.
func (r *TokenRegistry) Log() string { return r.registry.Log() }

// Close ends all of it.
func (r *TokenRegistry) Close() error {
	return errors.Join(r.Meter.Close(), r.registry.Close(), r.Tokens.Close())
}
