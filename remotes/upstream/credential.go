package upstream

import (
	"context"
	"log/slog"
)

// Credential is what a registry takes for who asks. The zero Credential is
// nobody: larder then asks anonymously.
type Credential struct {
	// Username goes with Secret as its password. If it is empty, Secret is an
	// identity token, which only token services take.
	Username, Secret string
}

// IsZero reports whether there is none.
func (c Credential) IsZero() bool { return c == Credential{} }

// String leaves the secret out.
func (c Credential) String() string {
	switch {
	case c.IsZero():
		return "no credential"
	case c.Username == "":
		return "an identity token"
	}
	return "credential of " + c.Username
}

// GoString is String: %#v must not show the secret either.
func (c Credential) GoString() string { return c.String() }

// LogValue implements slog.LogValuer.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Credentials finds the credential for a repository of an upstream. It is safe
// for concurrent use.
type Credentials interface {
	// Credential returns the credential for a repository at an upstream's host
	// (host[:port]), or the zero Credential if none is known. It may run a
	// program or ask a cloud, once for all who wait.
	Credential(ctx context.Context, host, repository string) (Credential, error)
	// Refuse says that the upstream refused a credential that Credential gave:
	// the next call asks its source anew.
	Refuse(host, repository string, refused Credential)
}
