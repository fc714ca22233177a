// Package remotes is pull-through itself: it maps names to repositories,
// decides whether a tag is fresh, answers from the store, and fills the store
// from upstream. [Registry] does this; mirror, command line and [Resolver]
// all go through it.
//
// # Promises
//
// By digest nothing is asked twice: what is in the store is served without
// any upstream. (TestDigestNeedsNoUpstream)
//
// By tag, inside the window, no upstream is asked. Outside it, one check is
// made, shared by all who wait; whatever goes wrong with it, the stored image
// is served and the next check waits longer. A pull waits at most
// Freshness.Patience for a check when there is something stored, and not at
// all while another check on that registry host is overdue.
// (TestWindow, TestStaleOnAnyFailure, TestDeadUpstreamCostsOneWait)
//
// A tag moves only to a manifest that is in the store. (TestMovedTagAfterWindow,
// TestMovedTagToUnavailableManifest)
//
// Manifests are stored as they came, at most 4 MiB, after their digest was
// checked; one that could be read as two things is refused (CVE-2021-41190).
// (TestAmbiguousManifest)
//
// Work that was begun for a client goes on when the client leaves.
// (TestCheckOutlivesItsClient)
//
// What upstream refuses (404, 401, 403) and is not stored is not asked for
// again for a few seconds: containerd repeats a refused HEAD as GET.
// (TestRefusalIsRemembered, TestRefusalYieldsToStoreAndRefresh)
//
// The upstreams of a registry host are tried in the order of its route; of
// their errors the most telling one is returned. One whose bytes did not make
// a blob comes last for that blob. (TestRouteFallsThrough,
// TestMostTellingErrorWins, TestNextUpstreamAfterBadBytes)
//
// A stored manifest that lost its digest, or a blob whose file has not the size
// it was published with, is thrown away and fetched again.
// (TestDamagedManifestIsFetchedAgain, TestDamagedBlobIsFetchedAgain)
//
// What a stored blob is, its bytes say, and not the manifest of somebody who
// names it. (TestClaimsDoNotChangeTypes, TestLayerIsNoManifest)
//
// What belongs to an image comes along with it, behind the pull: referrers,
// theirs, and cosign's tags. It is bounded, delays no pull, and is asked for
// once a window, whatever of it exists. Pull waits for it and never fails for
// it; Run ends at once. (TestCompanionsComeAlong, TestCompanionsAskOnce,
// TestCompanionsOfTagsWithoutWindow, TestPullBringsCompanions,
// TestCompanionsDoNotHinder, TestCompanionBounds, TestManyReferrers,
// TestQueueIsBounded, TestOfflineFetchesNoCompanions)
//
// The list of a stored manifest's referrers has the window of a tag, and is
// served stale if upstream fails; a refusal is never taken for an empty list.
// What is new in it comes along. (TestReferrersOfStored,
// TestReferrersOfDeletedRepository, TestReferrersWithdrawn,
// TestNoReferrersIsRemembered, TestReferrersOfUnknown, TestReferrersCostOneWait,
// TestReferrersThatAreNone, TestNewReferrerComesAlong)
//
// An image's companions are removed with it and kept by its pin.
// (TestRemoveTakesCompanions, TestPinKeepsCompanions,
// TestRemoveStopsAtUnreadableCompanion, TestRemovalEndsFollowing)
//
// Nothing that a reference or a pin needs is removed with another reference.
// (TestRemoveKeepsSharedBlobs, TestPinKeepsImage)
package remotes
