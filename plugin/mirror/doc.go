// Package mirror is larder as containerd sees it: the read half of the OCI
// distribution specification over HTTP, for containerd's hosts.toml.
//
// # Promises
//
// Bytes from upstream that end cleanly hash to the digest they were asked for
// by. If anything goes wrong behind the headers, the connection is cut: a bad
// body that ends cleanly stays in containerd's ingest and breaks the next pull
// too. What fits into cache.HoldBack is refused instead, before a byte is sent.
// Of a stored blob the size is checked, and not the hash. If the disk loses its
// bytes amid an answer the connection is cut, and who asks for the rest gets it
// from upstream; what is lost at the start comes from upstream at once. That is so
// whether a blob sends itself or is copied. (TestSending, TestSendingToNobody,
// TestAbortOnBadBytes, TestSmallBadBlobIsRefused, TestAbortOnShrunkFile, TestUnreadableHit,
// TestBodyIsCopied)
//
// Headers come within Options.Wait, or a refusal does, so that containerd
// goes on to its next host. A refusal is 400, 401, 403, 404, 405, 502, 503, or 508 for
// a request of larder's own: containerd takes each as "next host". It is never
// 429, which containerd repeats five times at once, and never a redirect.
// (TestRefusals, TestMalformedRequests, TestHungUpstream,
// TestUnknownSizeArrivesLate, TestLoopIsRefused, TestLoopOverTwo)
//
// A disk that takes nothing is not seen by clients, but that nothing is a hit. Who
// cannot be passed through, because too many are, gets 503. (TestReadOnlyDisk,
// TestTooMuchPassedThrough)
//
// A stored manifest is answered from memory, and not any more once its file is
// gone. (TestManifestHealsAtOnce, TestTargets)
//
// HEAD has the headers of GET; a range may be asked for of a blob that is
// still arriving, too; of several ranges at once the whole is sent.
// (TestHeadIsGetWithoutBody, TestRangeOfHit, TestRangeOfRunningFill)
//
// A list of referrers is an index, and never 404; the filter by artifact type
// holds wherever it came from. (TestReferrersAreNeverNotFound,
// TestReferrersOfStoredImage)
//
// Clients take a bounded share of the process's file descriptors, and what is
// above is told so at once, or reset; Accept never waits. One that reads nothing
// is cut, one that reads slowly is not. (TestConnectionsAboveTheBound,
// TestOpenBlobsAreBounded, TestListenerEnds, TestStalledReaderIsCut)
//
// A connection that is idle waits at the door, outside net/http, and costs its
// descriptor and little more. Plain requests for manifests that are at hand are answered
// there, in the same words as by net/http; with all else the connection goes in, with
// every byte that was said, and comes back. An answer that hangs, or one that is not
// taken, holds up nobody else. Who says nothing for too long is closed, and at the end
// of the server everybody is. (TestIdleConnectionsWaitAtTheDoor, TestRequestsInPieces,
// TestNextRequestBegins, TestNothingIsLostBehindARequest, TestAnswerPlain,
// TestWrongSizeIsNotAnsweredAtTheDoor, TestParsePlain, FuzzPlain, TestHangingAnswers, TestPanicAtTheDoor, TestSlowTaker,
// TestSilentConnectionsAreClosed, TestDoorCloses, TestDoorUnderLoad)
//
// A fill goes on when its client leaves. (TestFillOutlivesClient)
//
// Who wants anything of a private repository shows a pull secret, by the Basic
// scheme: without one the answer is 401 with a challenge, which containerd
// answers with the pod's; with one that upstream does not accept it is 403.
// Other schemes count as none. Of any other repository Authorization is not
// looked at, and of what a rule denies no upstream is asked. (TestPrivateNeedsSecret,
// TestAuthorizationHeader, TestPublicIgnoresAuthorization, TestPrivateUpstreamDown,
// TestDeniedIsNotVerified)
//
// A [Seeder] hears of a stored manifest before containerd on this machine does,
// and of nothing else. (TestSeeder, TestSeederOfOtherNode) A [Prefetcher] hears of a
// manifest that is asked for by GET, and by HEAD where the clients read the store
// themselves. (TestPrefetcher)
//
// Nothing is written but through pull-through: any method except GET and
// HEAD is refused, and a name that does not exist leaves no trace.
// (TestMethods, TestUnknownNamesLeaveNoTrace)
//
// One log line a request, without secrets. (TestLogLine)
package mirror
