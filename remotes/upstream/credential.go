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

// MarshalText is String too: encoders of JSON and others must not see the
// secret. There is no way back.
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

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

// only are Credentials of one credential for everything. It is a function
// because fmt shows what is in unexported fields, whatever its type says.
type only func() Credential

func onlyThis(c Credential) only { return func() Credential { return c } }

// Credential implements Credentials.
func (o only) Credential(context.Context, string, string) (Credential, error) { return o(), nil }

// Refuse implements Credentials. There is no other one to be had.
func (o only) Refuse(string, string, Credential) {}

// credentialError says that a look-up failed. It hides its cause from
// containerd's client, as tokenError does.
type credentialError struct {
	host string
	err  error
}

func (e *credentialError) Error() string {
	return "look up the credential for " + e.host + ": " + e.err.Error()
}

// Is finds the context's errors only.
func (e *credentialError) Is(target error) bool { return isContextError(e.err, target) }
