// Package unpack writes the files of a stored layer into a snapshot, as containerd's
// own differ does, and faster.
//
// Decompression, the digest of the tar stream and the files each have goroutines of
// their own. Files are written by containerd's own code (pkg/archive), by several of
// its appliers at once: the layer's entries are dealt out to them. One, the spine,
// has all whose order matters: folders, links, devices, whiteouts. The others have
// the plain files. The tar stream that each of them reads is made of the very bytes
// of the layer.
//
// # Promises
//
// A snapshot is the same whoever unpacked it. Files are written at once only where
// no order can show: into a folder that was empty, below folders that this layer has
// made and that no link leads to, each path once. Where that is not sure, one waits
// for the others; and what cannot be dealt out (sparse files, whiteouts in a base
// layer) is unpacked by one applier from the start. (TestDeal, TestDealInOrder, TestDealByLinks,
// FuzzDeal)
//
// A layer that is broken or breaks off is an error, and no goroutine stays behind.
// (TestBroken, TestCancel, TestEndless)
//
// A copy of a layer is never needed, and never believed: what it gives has a checksum
// of its own, and from where it is spoiled the layer itself is read.
// (TestCopyIsUsed, TestSpoiledCopy, TestCopyOfAnother, TestCopiesBudget,
// TestCopiesNotWorth, TestCopiesRun, TestNoCopyOfDamaged, TestNoRoomIsNoNews,
// TestCopiesOfOthers)
//
// Memory is bounded: what is ahead of the slowest is some chunks, whatever the size
// of the layer or of its files. (TestChunksComeBack)
package unpack
