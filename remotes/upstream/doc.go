// Package upstream talks to registries: the only package of larder that opens
// network connections outwards. It drives containerd's own registry client
// (core/remotes/docker) over a transport of its own. It writes no files.
//
// # Promises
//
// Where it connects. https only, and never to loopback, private, link-local
// or otherwise special addresses, unless the configuration names the host and
// port. The address is checked when the connection is made, after name
// resolution, and for redirects and token realms too. A proxy that the
// environment names resolves by itself: behind one, only literal addresses
// are checked. (TestGuardRefusesPrivate, TestIsPublic, TestPlainOnlyWhereNamed,
// TestRedirectToPrivateAddress, TestRealmAtPrivateAddress, TestEnvironmentProxy,
// TestLiteralAddressBehindProxy)
//
// Who gets credentials. A credential goes to the origin it was made for: it
// is dropped on a redirect to any other scheme, host or port. At most five
// redirects are followed. (TestRedirectDropsAuthorization,
// TestRedirectKeepsAuthorizationAtOrigin, TestRedirectLimit)
//
// What it believes. Sizes are bounds, never allocations; manifests end at
// MaxManifestSize, tokens and lists earlier, redirected or not; a manifest is
// checked against its digest; a response in a content encoding that was not
// asked for is refused, and so is a part that begins elsewhere than asked.
// (TestManifestTooLarge, TestManifestWrongBytes, TestTokenTooLarge,
// TestContentEncodingRefused, TestBlobWrongRange)
//
// What a list of referrers is. All pages of it, and never an empty one in place
// of a refusal. (TestReferrers, TestReferrersPages, TestErrorKinds)
//
// How often it asks. One request is one request: what timed out, or answered
// with 429 or 5xx, is not asked again here. A blob's body that is cut off is
// asked for again from there; a token that was refused is renewed, once.
// (TestTooManyRequestsIsAskedOnce, TestServerErrorIsAskedOnce,
// TestTimeoutIsAskedOnce, TestBlobResumes, TestUnauthorizedForever)
//
// Whom it leaves alone. An upstream that is silent once, or fails five times
// in a row, is left alone for a pause; then one exchange tries it. A caller
// that leaves says nothing of the upstream. (TestBreakerOpensOnSilence,
// TestBreakerOpensOnFailures, TestBreakerLetsOneThrough,
// TestBreakerIgnoresCallersEnd, TestBreakerReturnsPermit)
//
// Who waits for whom. A token request is shared and outlives the caller that
// caused it; none of its failures is remembered. (TestTokenOutlivesCaller,
// TestTokenServiceDownThenBack)
//
// How larder knows itself. Every request carries a Via header with the Pool's
// ID. (TestViaOnEveryRequest)
//
// What errors say. Errors are of type *Error; errors.Is finds errdefs' kinds
// in them. Their text is one bounded line, with no URL beyond its host.
// (TestErrorKinds, TestErrorText, TestErrorHidesSignedURL)
package upstream
