// Package cache is the node-local digest store: published blobs, unfinished
// ingests, running fills, and an index of tags, pins and facts. It knows no
// HTTP and no registries; the bytes of a fill come through [Source].
//
// # Promises
//
// Whole or absent. A blob is published after its bytes were hashed, its size
// checked, and file and folder synced, in that order. After a kill or a power
// cut it is whole or it is not there; it is never short and never empty. The
// newest blobs may be forgotten. (TestPublishSurvivesKill in integration,
// TestCommit… here.)
//
// Nothing unverified is complete. A reader of a running [Fill] gets the last
// [HoldBack] bytes only once the digest matched; on a mismatch its Read fails
// and the bytes on disk are thrown away. (TestFillHoldsBackTail,
// TestFillWrongBytes)
//
// One fill a digest. However many ask, one Source is read. Readers may join
// at any time and at any offset, and leave at any time: the fill goes on
// without them. It ends when it is complete, when its Source fails, when it
// is slower than its [FillPolicy] allows, or when the store is closed.
// (TestFillOneSource, TestFillOutlivesReaders, TestFillStalls)
//
// Progress is kept. A fill that ended early leaves its ingest; the next fill
// of the digest hashes what is there and asks the Source for the rest. If
// the resumed whole does not match, it is fetched once more from the start.
// (TestFillResumes, TestFillBadPrefix)
//
// One process a store. Open takes a lock and names the holder if it is
// taken. (TestOpenLocked)
//
// The file system is the truth. Which blobs exist is read from the blobs
// folder alone. A lost or damaged index costs tags and facts, never bytes,
// and never stops Open. (TestOpenDamagedIndex)
//
// A Store and all its parts are safe for concurrent use. A cancelled context
// ends the caller's wait; it never ends a fill and never loses progress.
package cache
