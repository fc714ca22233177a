package remotes

import (
	"context"

	"github.com/larder-project/larder/remotes/upstream"
)

// Credential is what a client shows of itself: its pull secret.
type Credential = upstream.Credential

// caller is a client that was admitted to a repository under PrivateVerify.
// Whatever is asked of upstream for it is asked with its own credential, and
// with no other.
type caller struct {
	credential Credential
	// id stands for the credential in keys: see grants.mac.
	id string
}

// String tells nothing: fmt would not ask the credential how to print itself.
func (c caller) String() string { return "caller with " + c.credential.String() }

// GoString is String.
func (c caller) GoString() string { return c.String() }

type callerKey struct{}

func withCaller(ctx context.Context, c caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf returns the caller for whom something is done, false if it is done
// for larder itself or for anybody.
func callerOf(ctx context.Context) (caller, bool) {
	c, ok := ctx.Value(callerKey{}).(caller)
	return c, ok
}

func isForCaller(ctx context.Context) bool {
	_, ok := callerOf(ctx)
	return ok
}

// perCaller makes a key of shared work, or of its memory, the caller's own:
// what upstream told one caller is no answer to another.
func perCaller(ctx context.Context, key string) string {
	if c, ok := callerOf(ctx); ok {
		return key + "\x00" + c.id
	}
	return key
}

// clientFor is the client of an upstream for who is served.
func (r *Registry) clientFor(ctx context.Context, ep upstream.Endpoint) *upstream.Client {
	c := r.Pool.Client(ep)
	if who, ok := callerOf(ctx); ok {
		return c.As(who.credential)
	}
	return c
}
