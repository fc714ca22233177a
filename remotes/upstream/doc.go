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
// TestLiteralAddressBehindProxy, TestIPv6)
//
// ECR's own names, in TLS, may be at private addresses too, where a VPC has
// interface endpoints; never at loopback, link-local or metadata addresses.
// (TestMayBePrivate, TestECRAtPrivateAddress)
//
// Whom it trusts. A host's CA and client certificate are for that host and
// port: not for where it redirects to, and not for a proxy.
// (TestHostCertificates, TestHostCAIsAdded, TestHostFiles,
// TestHostCertificatesThroughProxy)
//
// Who gets credentials. An upstream that never asks causes no look-up. One
// that does gets the credential for its host and the repository there, looked
// up once an exchange, and from the first challenge on without being asked
// again. Tokens belong to one credential. (TestNoChallengeNoLookUp,
// TestCredentialAnswersChallenge, TestCredentialPerRepository, TestAs,
// TestCredentialRotates)
//
// What was shown goes to the upstream's origin only: it is dropped on a
// redirect to any other scheme, host or port, and who asks for it there is
// refused. At most five redirects are followed. A token service sees the
// credential if it is the registry's own host and port, or in its registrable
// domain, or named in Options.Realms, and reached by https unless the registry
// itself is not; else it is asked anonymously. A token request with a
// credential follows no redirect to another origin. (TestRedirectDropsAuthorization,
// TestRedirectKeepsAuthorizationAtOrigin, TestRedirectLimit,
// TestBlobRedirectLeaksNothing, TestForeignChallenge, TestRealmTrust,
// TestForeignRealm, TestForeignRealmLeaksNothing, TestRealmDowngrade,
// TestTokenRedirectLeaksNothing)
//
// What a refusal means. After a 401 or 403 to what was shown, the request is
// sent once more if there is something else to show: a new token for one that
// is not of this exchange, or another credential. A password that the upstream
// refuses, and a credential that its token service refuses, are reported to
// Credentials.Refuse and looked up anew, once an exchange. (TestRefusedCredential,
// TestRefusedByTokenService, TestRefusedTwice, TestExpiredToken,
// TestForbiddenForever, TestUnauthorizedForever, TestChallengeChangesForever)
//
// How long tokens live. For as long as they say, a minute if they do not say,
// at most a day. In the second half of its life a token is used while the next
// one is asked for. (TestTokenRenewedAtHalfLife,
// TestOldTokenWhileServiceIsDown, TestRenewalIsNotWaitedFor, TestTokensAreBounded)
//
// What it believes. Sizes are bounds, never allocations; manifests end at
// MaxManifestSize, tokens and lists earlier, redirected or not; a manifest is
// checked against its digest; a response in a content encoding that was not
// asked for is refused, and so is a part that begins elsewhere than asked. What
// comes for a tag has the digest that comes with it, or none was named.
// (TestManifestTooLarge, TestManifestWrongBytes, TestManifestByTag, TestTokenTooLarge,
// TestContentEncodingRefused, TestBlobWrongRange)
//
// What a list of referrers is. All pages of it, together no longer than a
// manifest, each checked before it is decoded, and never an empty one in place
// of a refusal or of one that is too long. The tag schema is for who refuses the
// endpoint. (TestReferrers, TestReferrersPages, TestReferrersTooLong,
// TestReferrersTooLongIsNotNone, TestReferrersRefusals, TestErrorKinds)
//
// How often it asks. One request is one request: what timed out, or answered
// with 429 or 5xx, is not asked again here. A blob's body that is cut off is
// asked for again from there; where what comes for a tag is cut, or not what the
// digest with it says, that digest is asked for, once. Where the upstream redirects
// a blob to a link that another origin refuses with 401, 403, 404 or 410, it is
// asked for another link, once an opening of the body.
// (TestTooManyRequestsIsAskedOnce, TestServerErrorIsAskedOnce,
// TestTimeoutIsAskedOnce, TestBlobResumes, TestManifestByTag, TestRefusedLink,
// TestLinkRefusedTwice, TestOnlyRefusedLinksAreRenewed)
//
// How much it asks. An upstream that asked to be left alone, by 429 or 503 with
// Retry-After, gets no request before that time; with nothing left of its
// allowance it is asked for blobs only, and with little left not for what a
// caller can do without (Client.Spare). What is known of it is in the ledger,
// which is bounded. (TestRetryAfterIsKept, TestRetryAfterOfOthers,
// TestMaintenanceIsBounded, TestSpare, TestParseAllowance, TestLedgerCounts,
// TestLedgerAccounts, TestWindowEnd, TestLedgerIsBounded) What it says to one
// credential of a caller it says to no other of the same name, be it at its token
// service. (TestWrongSecretsStopNobody)
//
// How much at a time. Exchanges and the speed of blobs are bounded for each
// host. What is short never waits behind blobs, one host never behind another,
// and waiting is no failure of the upstream. (TestConnectionsAreBounded, TestSampleIsABlob,
// TestPlacesComeBack, TestHostOverridesBounds, TestSpeedIsShared,
// TestSpeedOfClient) It is told how many blobs can be asked for now, and when one
// begins to wait. (TestStreams)
//
// How it asks for what is large. A blob of 16 MiB and more, as its manifest says,
// is asked for in parts, first of all for its first 8 MiB: that is one request and
// no more where there is nothing to gain (Options.Parallel; package ranged). No two
// parts have a byte in common. Bytes of a part that is not what was asked for, of
// another size or ETag, or answered by all of the blob, are not used. Further
// connections take places that are free, and leave some; where HTTP/2 would have
// all parts on one connection they are asked for by HTTP/1.1. A CDN that the
// upstream redirects to is asked directly until it refuses the link. An upstream
// that answers 429 or 503 to a part is waited for up to a minute, if it says how
// long; silence to what is not needed yet opens no breaker. (TestInParts,
// TestOneRequest, TestWrongHint, TestNoRange, TestSpanCheck, TestPartFaults,
// TestPartFaultsForGood, TestPartsByLink, TestPartsOverHTTP2, TestPartsLeavePlaces,
// TestSilentPartsOpenNoBreaker, TestPartsEnd, BenchmarkInParts)
//
// Whom it leaves alone. An upstream that is silent once, or fails five times
// in a row, is left alone for a pause; then one exchange tries it. A caller
// that leaves says nothing of the upstream, and what fails with a caller's secret
// shown, other than by silence, neither. (TestSecretOpensNoBreaker,
// TestBreakerOpensOnSilence,
// TestBreakerOpensOnFailures, TestBreakerLetsOneThrough,
// TestBreakerIgnoresCallersEnd, TestBreakerReturnsPermit)
//
// Who waits for whom. A token request is shared and outlives the caller that
// caused it; none of its failures is remembered, nor one of a look-up. A
// look-up ends with its caller. (TestTokenOutlivesCaller, TestManyCallersOneToken,
// TestTokenServiceDownThenBack, TestLookUpFails, TestLookUpEndsWithCaller)
//
// What Ping says. That an upstream is there, is a registry, and takes who asks,
// before anything is pulled. (TestPing, TestPingAsksForAScope,
// TestPingTokenRefused, TestPingGuarded)
//
// How larder knows itself. Every request carries a Via header with the Pool's
// ID, behind those of the larders before it. (TestViaOnEveryRequest,
// TestViaIsPassedOn)
//
// What errors say. Errors are of type *Error; errors.Is finds errdefs' kinds
// in them. Their text is one bounded line, with no URL beyond its host and no
// secret, not even one that upstream repeats. A refusal says whose credential
// was refused or withheld, or that none is known. (TestErrorKinds,
// TestErrorText, TestErrorHidesSignedURL, TestUpstreamRepeatsSecrets,
// TestSecretsStayIn, TestCredentialText, TestNoCredentialKnown)
package upstream
