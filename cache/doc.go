// Package cache is the node-local digest store: published blobs, unfinished
// ingests, running fills, and an index of tags, pins and facts. It knows no
// HTTP and no registries; the bytes of a fill come through [Source].
//
// # Promises
//
// Whole or absent. A blob is published after its bytes were hashed, its size
// checked, and file and folder synced, in that order. After a kill or a power
// cut it is whole or it is not there; it is never short and never empty. The
// newest blobs may be forgotten. (TestPublishSurvivesKill, TestCommit,
// TestPowerCutAnywhere, TestRandomOperations)
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
// is slower than its [FillPolicy] allows, or when the store is closed. (TestFillOneSource, TestFillOutlivesReaders,
// TestFillReaders, TestFillStalls, TestHold, TestFillClose, TestFillStress)
//
// A fill that only its beginner wants can be ended by it, for instance to give a
// connection to somebody else, and never under somebody who joined. (TestAbandon,
// TestAbandonSpares) Who can do without storing is told whether there is room with
// nothing evicted. (TestHasRoom)
//
// Progress is kept. A fill that ended early leaves its ingest; the next fill
// of the digest hashes what is there and asks the Source for the rest. If
// the resumed whole does not match, it is fetched once more from the start.
// A disk that is full is the exception: the bytes are given back as soon as no
// reader needs them. (TestFillResumes, TestFillBadPrefix, TestFillDiskFull)
//
// No disk fails a pull. Whatever call of it fails, and however often, the
// readers of a fill get its verified bytes. What the disk does not take is kept
// in a bounded window of memory, at the pace of the slowest reader; one that takes
// nothing while others wait is cut, and one that comes too late is told to ask
// again. Such a fill leaves the table: who asks next has the disk tried anew, and
// one more upstream body is read for it. Beyond 64 MiB of windows a fill fails
// with errdefs.ErrResourceExhausted. A blob whose fsync failed is never visible.
// (TestFaultyDiskFailsNoPull, TestPassThrough, TestPassThroughMidway,
// TestPassThroughWrongBytes, TestPassThroughSleeper, TestPassThroughNobody,
// TestPassThroughLimit)
//
// Bytes are hashed once, while the next ones come, and no buffer is used again before
// it is hashed. (TestBehindLends, TestBehindHashesHere) When fills have ended, the
// memory of their buffers goes back at once, but for that of a few.
// (TestBuffersGiveMemoryBack) The kernel begins to write
// them as they come, and nobody who brings or reads them waits for that.
// (TestWriteback, TestWritebackWaitsForNobody)
//
// A blob is sent out of the page cache without being touched: a page that the disk
// does not give is an error, and not the end of the process. Nothing of it stays
// resident, nothing mapped when it is closed, and a few pieces at most are while many
// are sent. (TestSend, TestSendAmongMany, TestSendToFull,
// TestSendOfLost, TestSendUnsupported)
//
// A blob whose bytes the disk lost is set aside at the first read that fails; if
// it cannot be, it counts as not there until the disk is well. (TestUnreadable)
//
// A store is well again by itself. On a disk that is full, read-only, broken or
// gone it opens, serves what can be read, says what is wrong once, in the log and
// by [Store.Health], and tries again every ten seconds. Wrong permissions, a newer
// format and a taken lock are for a person to mend, and stop Open. (TestHealth,
// TestOpenReadOnly, TestOpenOnNothing)
//
// Nothing is written where another folder has come to light: below the mount
// point of a file system that was unmounted, for instance. The store mounted
// next, the same one or another, is gone on with. A folder that was deleted is
// made anew only in the folder in which it was. (TestUnmounted, TestDeleted)
//
// Who has it is remembered. An upstream that sent a blob's bytes makes its
// repository a holder of the blob, once they are verified and before the blob
// can be seen. What a fill for a private [Origin] left unfinished is resumed for
// the same repository only. A damaged blob keeps its holders. (TestHolders,
// TestFillNotesHolder, TestBlobRecord, TestDamageKeepsHolders, TestPrivatePrefixStays)
//
// Only what was published is served. A link, fifo, socket or folder among the
// blobs is not there for any reader, and hangs none. Publishing replaces it;
// a folder in a blob's place is left to a person and named in the error. A blob
// whose name could not be written down is not there either, until it is.
// (TestPlanted, TestPlantedData, TestWalk, TestNameNotOnDisk)
//
// One process a store. Open takes a lock and names the holder if it is
// taken; a killed process holds nothing. (TestOpenLocked)
//
// Nobody else's store is touched. Open refuses a folder of a newer larder
// before it changes anything but the lock. (TestOpenNewerFormat)
//
// The file system is the truth. Which blobs exist is read from the blobs
// folder alone. A lost or damaged index costs holders and last uses, never bytes,
// and never stops Open; the damaged file is kept. Tags, digests that were asked
// for and pins are there when Open returns, but those of the last second or, in
// a large store, of the time that keeps snapshots to 2 % of it; what hangs on
// them follows. A large index is read as a whole behind Open only, and damage that
// is found then is what it is in a store that runs: an error of each call, no
// crash, and begun anew, with what the last snapshot has: none is written of an
// index that was not read. A rebuilt index widens nobody's access. An index that merely
// cannot be opened now, because the disk is full or somebody holds it, is not
// damaged. (TestOpenDamagedIndex, TestIndexDamagedWhileRunning,
// TestLargeIndexIsReadLater, TestOpenIndexBusy, TestDiskFullElsewhere,
// TestRebuild, TestRebuildGoesOn, TestRestoreWhileRunning, TestRebuildOfRemains, TestSnapshotFollows,
// TestSnapshotIsLayout, TestSnapshotOfOthers, FuzzSnapshot)
//
// Memory is never ahead of the disk. What is remembered of the index goes at each
// change of it, and a manifest in memory is asked for with a look at its file, which
// must be the same still: what was removed, moved away or changed, by whomever, is
// served to nobody. Both are bounded. (TestChangesAreSeenAtOnce, TestMemoEndsWithIndex,
// TestMemoIsBounded, TestManyTagsAreRemembered, TestManifestInMemory, TestYoungManifestIsRead,
// TestManifestsInMemoryAreBounded)
//
// Damage is found. Verify reads the bytes on the disk, and takes only what is
// wrong twice for damaged. That is then not served, kept within bounds, and
// recorded; a newer blob in its place stays. Entries that are wrong about a
// right blob are put right. The page cache is left as it was. (TestVerifyFlips,
// TestVerifyDamages, TestVerifyReadsTwice, TestVerifyKeepsWhatIsNew,
// TestVerifyHealsEntry, TestVerifyLeavesPages, TestQuarantineIsBounded,
// TestDamagesAreBounded, TestDamagedIsNeverLeft) Scrub reads all once a period,
// no faster than it may and not while the node is busy, goes on where it was
// stopped, and rests before a failing disk has emptied the store. (TestScrub,
// TestScrubPeriod, TestScrubGoesOn, TestScrubRate, TestScrubWaits,
// TestScrubBrakes) OpenVerified reads a blob once a boot. (TestOpenVerified,
// TestOpenVerifiedDamaged, TestOpenVerifiedIsShared)
//
// What is pinned is known at once, and to whom it is owed. A pin is durable when
// PutPin returns; each owner takes its own away only; a record that is damaged
// still pins. An older larder sees the pins of the command line and takes them
// away. (TestPins, TestPinsOf, TestSetPins, TestPinIsSeenAtOnce,
// TestPinsWayBack, FuzzIndexRecords, BenchmarkPinsOf)
//
// What a tag pointed to is remembered, also when the tag is gone, and is written
// with the change itself. The memory is bounded. (TestHistory,
// TestHistoryOfOlderStore, TestHistoryIsBounded, TestHistoriesAreBounded)
//
// A list of referrers belongs to a manifest of a repository, and goes with it.
// (TestReferrers) A store of an older larder opens as it is, and opens there again,
// where holders of what came meanwhile are not known.
// (TestOpenOldIndex, TestUpgrade, TestUpgradeResumes, TestWayBack, TestOldRecords)
//
// A tiny blob that was pulled takes 300 bytes of the index at most, where names are of
// a usual length. (TestIndexIsSmall)
//
// The store keeps within its [Budget]. What it takes is counted as the file system
// counts, over restarts without a look at the blobs; a fill, a Put and a Writer
// have their bytes promised before they write them, and get
// errdefs.ErrResourceExhausted with the bound and what to do about it where there
// is no room. (TestUsage, TestUsageAfterCrash, TestRecountWhileInUse, TestReserve,
// TestReserveUnknownSize, TestEvictUnderPulls, TestAllowance)
//
// Eviction takes images whole, by their idle time over what they cost to fetch
// again, and never what is pinned, exposed, in use, held, read, or needed by an
// image that stays; nor what came into use between the choice and the deed. Blobs
// of no image go first: that is what a crash leaves of an eviction. For what cannot
// be made to fit nothing is evicted. Where it is the file system that is short, an
// image stays of whose bytes most have another name outside the store, too: their
// removal frees nothing, and does not count as room that can be made. What went, and
// why, is remembered, within bounds. A clock that is wrong evicts nothing: only room does. A removal holds up
// who wants that blob, and nobody else.
// (TestRemovalHoldsUpNobodyElse, TestClockEvictsNothing, TestEvictOrder, TestEvictWhole, TestEvictSpares, TestEvictUsersFail,
// TestEvictSparesWhatIsTaken, TestEvictCrash, TestEvictDry, TestEvictLeftIngest, TestEvictOtherName,
// TestMakeRoomOtherName, TestMakeRoom, TestGraphProperty, TestGraphUnreadableManifest,
// TestGravesAreBounded, TestKeeper)
//
// What containerd counts on stays. Where the store is its content store (see
// [WithExposure]), a blob that it was told of is neither evicted nor removed until
// it says so, and a grace longer: that is durable before it is told, and told
// without the disk from then on. If the index is lost, all stays until ExposeAll.
// (TestExposed, TestExposedStays, TestExposeUnsure, TestExposedIndexLostWhileRunning,
// TestExposedLost, TestExposedGone, TestExposeUnsureStays, TestUnexposeOnSlowDisk,
// TestExposeWhileLoaded, TestExposeAgainstEviction)
//
// Files change hands without a copy. One that is adopted is read first, and is
// whole or absent as any blob; the name that it had stays. (TestAdopt,
// TestAdoptRefuses, TestAdoptOnFaultyDisk) A blob that got a second name outlives
// its eviction there. (TestLinkTo)
//
// A Store and all its parts are safe for concurrent use. A cancelled context
// ends the caller's wait; it never ends a fill and never loses progress.
// (TestIndexConcurrency, TestFillStress) After Close every call fails with
// errdefs.ErrUnavailable, and open blobs stay readable. (TestClosed)
package cache
