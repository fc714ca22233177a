package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes"
)

// challenge is what a client is told that shows no pull secret where one is
// needed. containerd answers it with the pod's.
const challenge = `Basic realm="larder"`

// Admitter says who may have what is private, as remotes.Registry does.
type Admitter interface {
	IsPrivate(repo remotes.Repository) bool
	Admit(ctx context.Context, repo remotes.Repository, manifest string, cred remotes.Credential) (context.Context, error)
}

// identify has a client admitted to a private repository, and returns the
// context to serve it with. What it says of itself for any other is not looked
// at.
func (s *Server) identify(ctx context.Context, r *http.Request, repo remotes.Repository, req request) (context.Context, error) {
	if !s.registry.IsPrivate(repo) {
		return ctx, nil
	}
	cred, err := credential(r)
	if err != nil {
		return nil, err
	}
	manifest := ""
	if req.kind == kindManifest {
		manifest = req.object
	}
	admitted, err := s.registry.Admit(ctx, repo, manifest, cred)
	switch {
	case errdefs.IsUnauthorized(err):
		return nil, &mistake{status: http.StatusUnauthorized, code: "UNAUTHORIZED",
			message: "this repository is private: a pull secret is needed (imagePullSecrets)", err: err}
	case errors.Is(err, remotes.ErrNotAccepted):
		return nil, &mistake{status: http.StatusForbidden, code: "DENIED",
			message: "the upstream registry does not accept this pull secret for this repository", err: err}
	case errdefs.IsInvalidArgument(err):
		return nil, invalid(objectCode(req.object), err)
	}
	return admitted, err
}

// maxCredential bounds user and password in bytes. The longest that registries
// give are tokens of a few KiB. Upstreams break a connection off for headers that
// are far too long, and that must not look like a failure of theirs.
const maxCredential = 16 << 10

// credential reads the pull secret of a request: Basic, both parts not empty.
// No Authorization, and one in any other scheme, is none: the challenge says
// what is wanted.
func credential(r *http.Request) (remotes.Credential, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return remotes.Credential{}, nil
	}
	if len(values) > 1 {
		return remotes.Credential{}, malformed("is there %d times", len(values))
	}
	if scheme, _, _ := strings.Cut(strings.TrimSpace(values[0]), " "); !strings.EqualFold(scheme, "Basic") {
		return remotes.Credential{}, nil
	}
	user, password, ok := r.BasicAuth()
	switch {
	case !ok:
		return remotes.Credential{}, malformed("is not base64 of user:password")
	case user == "" || password == "":
		return remotes.Credential{}, malformed("has an empty user or password")
	case len(user)+len(password) > maxCredential:
		return remotes.Credential{}, malformed("has more than %d bytes", maxCredential)
	case strings.ContainsFunc(user+password, unicode.IsControl): // RFC 7617, 2
		return remotes.Credential{}, malformed("has control characters")
	}
	return remotes.Credential{Username: user, Secret: password}, nil
}

// malformed says what is wrong, and repeats nothing of it.
func malformed(format string, args ...any) error {
	return invalid("UNAUTHORIZED", fmt.Errorf("header Authorization %s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument))
}
