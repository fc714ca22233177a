// Package upstream talks to registries: the only package of larder that opens
// network connections outwards. It drives containerd's own registry client
// (core/remotes/docker) over a transport of its own. It writes no files.
//
// # Promises
//
// Where it connects. https only, and never to loopback, private, link-local
// or otherwise special addresses, unless the configuration names the host.
// The address is checked when the connection is made, after name resolution,
// and for redirects and token realms too. (TestGuardRefusesPrivate,
// TestRealmAtPrivateAddress, TestRedirectToPrivateAddress)
//
// Who gets credentials. A credential goes to the origin it was made for: it
// is dropped on a redirect to any other scheme, host or port.
// (TestRedirectDropsAuthorization)
//
// What it believes. Sizes are bounds, never allocations; manifests end at
// MaxManifestSize; a manifest is checked against its digest; a response in a
// content encoding that was not asked for is refused.
// (TestManifestTooLarge, TestManifestWrongBytes, TestContentEncodingRefused)
//
// How often it asks. One request is one request: 429 and 5xx are not
// retried here. An upstream that does not answer is left alone for a while
// after one timeout. (TestTooManyRequestsIsAskedOnce, TestBreaker…)
//
// Errors are of type *Error; errors.Is finds errdefs' kinds in them.
package upstream
