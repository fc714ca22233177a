// Package cache is the node-local digest store: published blobs, unfinished
// ingests, running fills, and an index of tags, pins and facts. It knows no
// HTTP and no registries; the bytes of a fill come through [Source].
//
// # Promises
//
// Whole or absent. A blob is published after its bytes were hashed, its size
// checked, and file and folder synced, in that order. After a kill or a power
// cut it is whole or it is not there; it is never short and never empty. The
// newest blobs may be forgotten. (TestPublishSurvivesKill, TestCommit)
//
// Nothing unverified is complete. A reader of a running [Fill] gets the last
// [HoldBack] bytes only once the digest matched; on a mismatch its Read fails
// and the bytes on disk are thrown away. A Read never ends in io.EOF before
// the end of a verified blob. (TestFillHoldsBackTail, TestFillWrongBytes,
// TestFillBadPrefix)
//
// The digest decides. What an upstream announces or a manifest claims bounds
// what is read; it never makes right bytes fail, except where clients were
// told another size already, and never makes wrong ones pass.
// (TestFillUpstream, TestNoteDescriptors)
//
// One fill a digest. However many ask, one Source is read. Readers may join
// at any time and at any offset, and leave at any time: the fill goes on
// without them. It ends when it is complete, when its Source fails, when it
// is slower than its [FillPolicy] allows, when the disk fails, or when the
// store is closed. (TestFillOneSource, TestFillOutlivesReaders,
// TestFillReaders, TestFillStalls, TestHold, TestFillClose, TestFillStress)
//
// Progress is kept. A fill that ended early leaves its ingest; the next fill
// of the digest hashes what is there and asks the Source for the rest. If
// the resumed whole does not match, it is fetched once more from the start.
// A disk that is full is the exception: the bytes are given back at once, even
// while readers hold them. (TestFillResumes, TestFillBadPrefix,
// TestFillDiskFull)
//
// Who has it is remembered. An upstream that sent a blob's bytes makes its
// repository a holder of the blob, once they are verified and before the blob
// can be seen. What a fill for a private [Origin] left unfinished is resumed for
// the same repository only. (TestHolders, TestFillNotesHolder,
// TestPrivatePrefixStays)
//
// Only what was published is served. A link, fifo, socket or folder among the
// blobs is not there for any reader, and hangs none. Publishing replaces it;
// a folder in a blob's place is left to a person and named in the error.
// (TestPlanted, TestPlantedData, TestWalk)
//
// One process a store. Open takes a lock and names the holder if it is
// taken; a killed process holds nothing. (TestOpenLocked)
//
// Nobody else's store is touched. Open refuses a folder of a newer larder
// before it changes anything but the lock. (TestOpenNewerFormat)
//
// The file system is the truth. Which blobs exist is read from the blobs
// folder alone. A lost or damaged index costs tags, facts and holders, never bytes,
// and never stops Open; the damaged file is kept. An index that merely cannot
// be opened now, because the disk is full or somebody holds it, is not
// damaged. (TestOpenDamagedIndex, TestOpenIndexBusy, TestDiskFullElsewhere)
//
// A list of referrers belongs to a manifest of a repository, and goes with it.
// (TestReferrers) An index of an older larder opens as it is. (TestOpenOldIndex)
//
// A Store and all its parts are safe for concurrent use. A cancelled context
// ends the caller's wait; it never ends a fill and never loses progress.
// (TestIndexConcurrency, TestFillStress) After Close every call fails with
// errdefs.ErrUnavailable, and open blobs stay readable. (TestClosed)
package cache
