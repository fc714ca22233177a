// Package proxy is larder as containerd's content store and differ, or as its differ
// alone: a gRPC server for its proxy plugins, over a cache.Store that one containerd
// uses.
//
// # Promises
//
// containerd sees what it was told of. A blob is exposed on record before Info, a
// commit, or an answer that it exists already, names it; it is never evicted from
// then on, until containerd deletes it. What larder stores beyond that is not
// listed, so that containerd's garbage collection, which deletes what it lists and
// does not know, leaves it alone; larder's own ingests likewise.
// (TestGarbageCollection, TestForeignIngests, TestReadOfDeleted)
//
// No write fails for the budget: containerd has no other place.
// (TestWriteBeyondBudget)
//
// What larder can bring containerd does not fetch. A write waits, before anything is
// written, for the fill that brings the same blob, and is told that it is whole then:
// until it is committed the blob is not removed. That holds up nothing else of
// containerd's, shows how it goes on, and ends with containerd, and when nothing has come
// for too long. What cannot be brought so containerd fetches, as ever.
// (TestWriteWaitsForFill, TestCommitWaitsForNothing, TestLateFillIsNotWaitedFor,
// TestWholeIsHeld, TestWholeIsWrittenAnew, TestWaitEndsWithContainerd,
// TestHungFillIsLeft, TestSilentUpstreamIsLeft, TestLongFillIsNoHungDisk,
// TestFailedFillIsFetched)
//
// It is containerd's content store in all else. (TestContentSuite,
// TestContentSuiteBelowMetadata)
//
// A snapshot is the same whoever unpacked it: see package unpack. What larder does
// not know, it leaves to the next differ. (TestApply, TestApplyRefuses,
// TestApplyHugeWindow) A layer that is damaged in the store is
// not tried twice. (TestApplyDamaged)
//
// Beside a content store of containerd's own, larder's is not shown to containerd. A
// layer that is not in it, or cannot be read there, is read by containerd's API,
// within bounds, and where that cannot be done, the layer is left to the next differ.
// (TestDifferAlone, TestLayers, TestContainerd, TestContainerdHangs)
//
// A store that has lost its index removes nothing until containerd has said what it
// counts on. (TestKnown, TestMakeSure, TestMakeSureEnds)
//
// It does not hold containerd up. containerd asks under the lock of its database:
// what it was told of it is told again from memory, and what the disk does not
// answer in time is an error, of a layer that is unpacked as well.
// (TestInfoOnHungDisk, TestBounds, TestBoundsOfStreams, TestLayersOnHungDisk,
// TestShutdownOnHungDisk)
package proxy
