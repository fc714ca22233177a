package remotestest

import (
	"net/http"

	"github.com/opencontainers/go-digest"
)

// Match chooses requests. It must not read the body, and may be called from
// many goroutines at once.
type Match func(*http.Request) bool

// Any matches every request, the token endpoint included.
func Any() Match { return func(*http.Request) bool { return true } }

// Base matches the version check, /v2/.
func Base() Match { return ofKind(kindBase) }

// Tokens matches the token endpoint.
func Tokens() Match { return ofKind(kindToken) }

// Blobs matches /v2/<name>/blobs/<digest>.
func Blobs() Match { return ofKind(kindBlob) }

// Manifests matches /v2/<name>/manifests/<reference>, by tag and by digest.
func Manifests() Match { return ofKind(kindManifest) }

// Tags matches /v2/<name>/tags/list.
func Tags() Match { return ofKind(kindTags) }

// Referrers matches /v2/<name>/referrers/<digest>.
func Referrers() Match { return ofKind(kindReferrers) }

// Method matches an HTTP method, as in "HEAD".
func Method(method string) Match {
	return func(r *http.Request) bool { return r.Method == method }
}

// Repo matches every endpoint of one repository, as in "library/nginx".
func Repo(name string) Match {
	return func(r *http.Request) bool { return parse(r.URL.Path).repo == name }
}

// Reference matches manifests asked for by this tag or digest.
func Reference(ref string) Match {
	return func(r *http.Request) bool {
		to := parse(r.URL.Path)
		return to.kind == kindManifest && to.ref == ref
	}
}

// Digest matches blobs, manifests and referrers asked for by this digest.
func Digest(dgst digest.Digest) Match {
	return func(r *http.Request) bool { return parse(r.URL.Path).ref == dgst.String() }
}

// Ranged matches requests with a Range header.
func Ranged() Match {
	return func(r *http.Request) bool { return r.Header.Get("Range") != "" }
}

// And matches what all of ms match; with none, everything.
func And(ms ...Match) Match {
	return func(r *http.Request) bool {
		for _, m := range ms {
			if !m(r) {
				return false
			}
		}
		return true
	}
}

// Or matches what any of ms matches; with none, nothing.
func Or(ms ...Match) Match {
	return func(r *http.Request) bool {
		for _, m := range ms {
			if m(r) {
				return true
			}
		}
		return false
	}
}

// Not matches what m does not.
func Not(m Match) Match {
	return func(r *http.Request) bool { return !m(r) }
}

func ofKind(k kind) Match {
	return func(r *http.Request) bool { return parse(r.URL.Path).kind == k }
}
