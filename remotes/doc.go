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
// (TestWindow, TestStaleOn…, TestDeadUpstreamCostsOneWait)
//
// A tag moves only to a manifest that is in the store. (TestMovedTag…)
//
// Manifests are stored as they came, at most 4 MiB, after their digest was
// checked; one that could be read as two things is refused (CVE-2021-41190).
// (TestAmbiguousManifest)
//
// Work that was begun for a client goes on when the client leaves.
package remotes
