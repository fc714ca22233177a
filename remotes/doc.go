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
// all while another check on that registry host is overdue. A clock that jumps
// costs checks, or has them made later, by a window at most.
// (TestWindow, TestLateCheckAsksNothing, TestLateCheckAfterFailure,
// TestStaleOnAnyFailure, TestDeadUpstreamCostsOneWait, TestClockSetForward,
// TestClockSetBack)
//
// A check is not made from the last few pulls that an upstream allows, nor while
// it wants to be left alone: the stored image is served, and the check put off
// until then, or for a window. Those pulls are for what is not stored; with
// none left the next upstream of the route is asked. (TestTenThousandPulls,
// TestPostponedAtMostForWindow, TestLastPullsAreForMisses,
// TestLimitedUpstreamIsPassedOver)
//
// What is answered at once is what would be answered without haste, counts as a
// use, and passes no policy by. (TestReady, TestReadyIsUse, TestReadyKeepsPolicies)
//
// A tag is asked for by one HEAD, or by one GET while nothing of its repository is
// at hand, and blobs never by HEAD. A manifest that is at hand is not got for
// another tag of its repository: where pulls are limited a GET counts as one.
// (TestPullMethods, TestNewRepositoryIsAskedOnce, TestNewRepositoryOnFailingDisk)
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
// A disk that fails costs no pull, whichever of its calls fails, and widens no
// grant. A manifest that cannot be stored is answered from a bounded memory, for
// its repository alone, and stored once that is possible; no tag points to it
// before. A stored blob that the disk does not give is fetched beside it. What an
// index that cannot be read would say of holders, upstream is asked. Pull, which
// is to store, says why it cannot. (TestFaultyDiskCostsNoPull,
// TestIndexLostCostsNoPull, TestPassedManifestIsRemembered, TestPassedIsStoredLater, TestPassedBound,
// TestFaultyDiskWidensNoGrant)
//
// What upstream refuses (404, 401, 403) and is not stored is not asked for
// again for a few seconds: containerd repeats a refused HEAD as GET. Pull and
// Refresh ask all the same. (TestRefusalIsRemembered,
// TestRefusalYieldsToStoreAndRefresh, TestPullAsksAnew)
//
// The upstreams of a registry host are tried in the order of its route; of
// their errors the most telling one is returned. One whose bytes did not make
// a blob comes last for that blob. (TestRouteFallsThrough,
// TestRouteDigestMissingAtFirst, TestMostTellingErrorWins, TestUnaskedTellsLess,
// TestNextUpstreamAfterBadBytes)
//
// A large blob is asked for in parts; one that did not come right that way, by one
// request for ten minutes. (TestLargeBlobInParts)
//
// Who waits for a fill that another repository began, and that fails, has it
// fetched from its own upstreams. (TestFillFailedForAnotherRepository)
//
// A stored manifest that lost its digest, or a blob whose file has not the size
// it was published with, is set aside and fetched again.
// (TestDamagedManifestIsFetchedAgain, TestDamagedBlobIsFetchedAgain)
//
// Verify finds what is damaged, names the images that need it, and brings it
// from any repository that is known to have it, under that one's policies;
// nobody may have more afterwards. (TestVerifyRefetches, TestVerifyLost,
// TestVerifyAsksNobody, TestRefetchByImages, TestRefetchFromAnother,
// TestRefetchOpensNothing) When the index is lost every image is listed and
// served as before. (TestLostIndexIsRebuilt)
//
// All forms of a name lead to one repository, and that to one policy. A path
// on an ECR registry host is that registry's own unless a configured rule covers
// it, or the host is named for the built-in ones. The hosts of one ECR registry
// have one policy. (TestThreeFormsOneRepository, TestThreeFormsOnePolicy,
// TestFormsOfHostAreOnePolicy, TestHostsOfECRRegistryAreOnePolicy,
// TestECRHostsAreTheirOwn, TestConfiguredRulesOnECRHosts)
//
// What a rule or a template denies is refused, stored or not, in everything that
// brings or serves, and Admit shows its upstream nobody's secret. (TestPermit,
// TestDeniedEverywhere)
//
// Of an offline repository no upstream is asked, for nothing. (TestOffline)
//
// Under upstream-first every pull by tag asks, and waits no longer than for any
// check. (TestUpstreamFirst, TestUpstreamFirstWaitsWithPatience)
//
// An immutable tag that is stored never moves. (TestImmutableTag,
// TestImmutableTagWithoutManifest)
//
// A tag that upstream has deleted and that is to be refused stays refused while
// upstream is not asked again. (TestDeletedPolicy, TestRefuseRemembersGone)
//
// Who answered for a repository, and why upstreams were passed over, is
// remembered, within bounds. (TestSourcesOfRoute, TestSourcesAreBounded)
//
// What a stored blob is, its bytes say, and not the manifest of somebody who
// names it. (TestClaimsDoNotChangeTypes, TestLayerIsNoManifest)
//
// A rule is valid if the upstreams of its route are there, are registries, and
// take the rule's credential, or want one that the pullers of PrivateVerify bring;
// how a name maps is told as it is done. Templates that hold for nothing are
// told. (TestValidate, TestValidatePrivate, TestExplain, TestExplainNothing,
// TestIdleTemplates)
//
// A repository under [PrivateVerify] is served to those whom its upstream lets
// have a manifest of it; [Registry.Admit] asks by one HEAD, shared by all who
// show the same secret. Upstream's yes holds for Access.Verified, and for
// Access.Grace while upstream cannot be asked, both from when it was said; its
// no takes a yes back at once, also behind a tag check or a fetch. What is
// refused to one is refused to nobody else, and one's limit puts no check off
// for others. (TestAdmitAsksOnce, TestLimitIsTheCallersOwn,
// TestAdmitRefuses, TestGrantHolds, TestGrantGrace, TestGrantRevoked,
// TestVerificationIsShared, TestGraceIsImpatient, TestRevokedIsNotServedStale,
// TestVerificationsOfHosts, TestRefusalIsTheCallersOwn, TestFillRefusedToAnotherCaller, TestPrivateLists)
//
// What is missing of it is fetched with the caller's secret and no other, and
// companions behind a pull with larder's own. The caller's is kept as long as the
// request, the fill or the prefetch that it begins lasts, and printed nowhere; remembered is a keyed hash. The
// memory is bounded. (TestFetchAsCaller, TestPrivateCompanions,
// TestSecretsAreNotPrinted, TestMac, TestGrantsAreBounded) Nobody can be verified
// offline. (TestOfflineVerifiesNobody)
//
// As long as any repository is private, what is stored is served for a
// repository only if one of its upstreams is known to have it, or one of a
// repository that is not private; else an upstream must show it first, by the
// whole manifest or by bytes of the blob that it cannot foretell. Bytes that
// are on their way for a private repository are for no other. This binds
// [Resolver] and command line, too, which need not be admitted: they are
// larder's own. (TestPrivateMatrix, TestRegistryMustShowBytes, TestSampleIsTheSameForAll,
// TestFillOfPrivateIsNotShared, TestPullProvesBlobs, TestPolicyDecidesNow,
// TestTagFromBeforePrivacy, TestLostIndexOpensNothing)
//
// Which blobs a pull takes on this node is known from the stored manifests, and who
// hands them on to somebody that does not hash them gets those that are certainly
// right and the repository's own; no upstream is asked. (TestPullSet,
// TestPullSetIsBounded, TestOpenSure, TestOpenSureOfPrivate)
//
// When a client asks for a layer of an image whose manifest it was given, the other
// blobs of that image are brought, so many at a time, each asked for once; the
// client joins. It is done for that client as for its own requests, and of what is
// no image, nor by a layer that several images have, nothing is. An image that is
// whole costs no disk. (TestPrefetch, TestPrefetchOfImagesOnly,
// TestPrefetchOfAskedPlatform, TestPrefetchOfWholeImage, TestPrefetchAfterLoss,
// TestPrefetchOfPrivate)
//
// A client that reads the store itself, and tells no more than a digest, waits for a blob
// as well as one that asks for it, if it is certain whose it is, and anybody may have it.
// (TestAwaitBlob, TestAwaitBlobOfIndex, TestAwaitBlobBringsNothing,
// TestAwaitBlobOfPrivate, TestAwaitBlobEnds)
//
// No client waits for a prefetch: half of the connections for blobs are the
// clients', and one that needs another has it. Nothing is evicted for one, or stored
// beyond what the manifest says, nothing brought that the disk does not take, and
// nothing spent that an upstream hardly allows. What has not begun is dropped when
// no client pulls any more, one blob fails, the image is removed, or Run ends.
// (TestPrefetchMakesWay, TestPrefetchSeatsAreBounded, TestPrefetchesAreBounded,
// TestPrefetchBringsNothing, TestPrefetchLeavesUpstreamAlone,
// TestPrefetchOfFailingDisk, TestPrefetchOfLongerBlob, TestPrefetchPatience,
// TestPrefetchOfRemovedImage, TestPrefetchEndsWithRun)
//
// What belongs to an image comes along with it, behind the pull: referrers,
// theirs, and cosign's tags. It is bounded, delays no pull, and is asked for
// once a window, whatever of it exists. Pull waits for it and never fails for
// it; Run ends at once. A slow registry host holds up its own only.
// (TestCompanionsComeAlong, TestCompanionsAskOnce,
// TestCompanionsOfTagsWithoutWindow, TestPullBringsCompanions,
// TestCompanionsDoNotHinder, TestCompanionsOfSlowHost, TestCompanionBounds,
// TestCompanionsShareABound, TestManyReferrers, TestQueueIsBounded,
// TestOfflineFetchesNoCompanions, TestCompanionsOfImmutableTag, TestCompanionsBlobIsProven,
// TestCompanionsBlobIsOnItsWay, TestImageIsNotItsOwnCompanion)
//
// The list of a stored manifest's referrers has the window of a tag, and is
// served stale if upstream fails; a refusal is never taken for an empty list, and
// of one that is too long nothing is remembered. What is new in it comes along.
// (TestHostileReferrersAreCheap, TestReferrersOfStored,
// TestReferrersOfDeletedRepository, TestReferrersWithdrawn,
// TestNoReferrersIsRemembered, TestReferrersOfUnknown, TestReferrersCostOneWait,
// TestReferrersThatAreNone, TestNewReferrerComesAlong)
//
// An image's companions are removed with it and kept by its pin.
// (TestRemoveTakesCompanions, TestPinKeepsCompanions,
// TestRemoveStopsAtUnreadableCompanion, TestRemovalEndsFollowing)
//
// Nothing that a reference or a pin needs is removed with another reference: of
// what is pinned, by reference, digest or pattern, all platforms that are stored
// stay, with their referrers and the lists of them, through removals that run
// already, too. The error names each pin in the way of a removal, and how to
// take it away. (TestRemoveKeepsSharedBlobs, TestPinKeepsImage, TestPinKeepsAll,
// TestPinOfPart, TestPinSparesFromRunningRemoval, TestRemoveNamesPins)
//
// A pattern pins what it matches elsewhere, and never what it was not meant for:
// text that names nothing to pin is refused. (FuzzPinPattern, TestPinName,
// TestPinList)
//
// A pin file that is broken or gone changes nothing: what it held before goes on
// to hold, and the log says so. (TestPinFileIsReadAgain, TestPinFileIsWatched,
// TestPinFileErrors)
//
// A lifecycle policy expires images of the repositories that it holds for, each
// with all its tags, companions and what nothing else needs; once an hour, and
// as Lifecycle told. What is pinned, in use or being pulled stays, and so does
// all of a repository of which a manifest cannot be read. (TestLifecycle,
// TestLifecycleKeeps, TestLifecycleUntagged, TestLifecycleTakesCompanions,
// TestLifecyclePulled, TestLifecycleOfSharedManifest, TestLifecycleSparesMovedTag,
// TestLifecycleStopsAtUnreadable, TestLifecyclePolicyOf, TestLifecycleRuns)
//
// What it costs to fetch an image again is measured: speed and latency of the
// upstream that sent it, and whether that counts pulls. What cannot be fetched
// again, since its repository is offline, is dearest. (TestCostOf,
// TestCostOfOffline)
package remotes
