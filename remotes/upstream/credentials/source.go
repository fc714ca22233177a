package credentials

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

// dockerHub is the one name under which Docker Hub is asked for here,
// whichever of its names an endpoint has.
const dockerHub = "docker.io"

// source knows the credentials of one kind. It is safe for concurrent use.
type source interface {
	// find returns what the source has for a repository: the zero answer, or
	// an error of type *noneError, if that is nothing. All its errors wrap an
	// errdefs kind or a context's error, and none tells a secret.
	find(ctx context.Context, q query) (answer, error)
}

// answer is a credential, and how to say that it was refused.
type answer struct {
	credential upstream.Credential
	// refuse has the source ask anew at the next find. Nil: it does so anyway.
	refuse func()
}

// noneError says that a source has nothing, and why.
type noneError struct{ reason string }

func (e *noneError) Error() string { return e.reason }

// Unwrap makes it what it is, should it reach a caller.
func (e *noneError) Unwrap() error { return errdefs.ErrNotFound }

// query is a repository at an upstream that a credential is wanted for.
type query struct {
	host       string // canonical: lower case, docker.io for Docker Hub, no :443
	repository string
}

// newQuery checks what a client may have made up. Only text that is a registry
// host and a repository reaches programs, files and APIs.
func newQuery(host, repository string) (query, error) {
	ep, err := upstream.ParseEndpoint(host + "/" + repository)
	if err != nil || repository == "" || ep.Prefix != repository || strings.Contains(host, "/") {
		return query{}, fmt.Errorf("credential for %q at %q: not a repository at a registry host: %w",
			cut(repository), cut(host), errdefs.ErrInvalidArgument)
	}
	return query{host: canonical(ep.Host), repository: repository}, nil
}

// canonical is the form in which two names of one registry are equal.
func canonical(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ":443")
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return dockerHub
	}
	return host
}

// image is the query as image names have it.
func (q query) image() string { return q.host + "/" + q.repository }

// cut bounds text that is repeated.
func cut(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
