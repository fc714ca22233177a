package parts

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// tokenSigner signs registry tokens, and knows what a registry must be told to
// believe them.
type tokenSigner struct {
	signer jose.Signer
	// trust is the key and file of distribution's auth section.
	trust string
}

// access is one entry of a registry token's claim.
type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// newTokenSigner makes a key of the algorithm, RS256 or ES256. It is known to
// the registry by a JWKS file in dir, or by a certificate chain in each token.
func newTokenSigner(dir string, alg jose.SignatureAlgorithm, jwks bool) (*tokenSigner, error) {
	var key crypto.Signer
	var err error
	switch alg {
	case jose.RS256:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case jose.ES256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		return nil, fmt.Errorf("token key: algorithm %q, want RS256 or ES256: %w", alg, os.ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	opts := new(jose.SignerOptions).WithType("JWT")
	s := &tokenSigner{}
	if jwks {
		err = s.byKeySet(dir, alg, key, opts)
	} else {
		err = s.byChain(dir, key, opts)
	}
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	s.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	return s, err
}

const tokenKeyID = "larder-test-key"

func (s *tokenSigner) byKeySet(dir string, alg jose.SignatureAlgorithm, key crypto.Signer, opts *jose.SignerOptions) error {
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: key.Public(), KeyID: tokenKeyID, Algorithm: string(alg), Use: "sig"},
	}})
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "jwks.json")
	opts.WithHeader("kid", tokenKeyID)
	s.trust = fmt.Sprintf("jwks: %q", file)
	return os.WriteFile(file, set, 0o600)
}

func (s *tokenSigner) byChain(dir string, key crypto.Signer, opts *jose.SignerOptions) error {
	ca, err := NewCA(dir, "token-ca")
	if err != nil {
		return err
	}
	cert, err := ca.issue(key.Public(), "token.test")
	if err != nil {
		return err
	}
	opts.WithHeader("x5c", []string{base64.StdEncoding.EncodeToString(cert.Raw)})
	s.trust = fmt.Sprintf("rootcertbundle: %q", ca.File)
	return nil
}

// sign makes a token that is good until its expiry.
func (s *tokenSigner) sign(user, service string, grants []access, expiry time.Time) (string, error) {
	now := time.Now()
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	claims := struct {
		jwt.Claims
		Access []access `json:"access"`
	}{
		Claims: jwt.Claims{
			Issuer: tokenIssuer, Subject: user, Audience: jwt.Audience{service}, ID: fmt.Sprintf("%x", id),
			Expiry: jwt.NewNumericDate(expiry), NotBefore: jwt.NewNumericDate(now.Add(-time.Minute)), IssuedAt: jwt.NewNumericDate(now),
		},
		Access: slices.Clone(grants),
	}
	return jwt.Signed(s.signer).Claims(claims).Serialize()
}
