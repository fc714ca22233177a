// Package seed gives stored images to containerd without a copy: it links their
// blobs into the folder of containerd's own content store, on the same file
// system, before the manifest is answered. containerd looks there before it
// fetches; its pull is then one HEAD and no byte, and the disk has one copy. BenchmarkSeed has what that costs a pull.
//
// # Promises
//
// containerd does not hash what it finds there. So nothing is linked but what the
// store has verified: a published blob whose bytes were right, of the size that
// they had, that belongs to the repository that was asked for, in a regular file
// with mode 0444 of the user to whom containerd's folder belongs. It is the open
// file that is linked, and not what is at some path by then.
// (TestSeed, TestSeedsNothingUnsure, TestSeedsNothingForeign, TestLink)
//
// Whole or nothing. Of an image are linked the blobs that a pull takes on this
// node, and only if containerd will find all of them. What containerd has already
// stays as it is. (TestSeedsWholeImagesOnly, TestSeed)
//
// A link is on disk before the answer, as containerd's own blobs are before its
// database names them: containerd commits a blob that it finds without a look at
// the disk, and could else remember one that a power cut took away. The folder is
// synced once an image, if anything was linked. Only an answer that waits no longer
// for the disk may come before that. (TestSeedSyncs)
//
// It costs no pull. A disk that does not answer holds a request up for Patience,
// once: until it answers, nobody else waits. What is not linked by then, or cannot
// be, containerd pulls as ever. (TestSeedHangs, TestSeedOnce)
//
// It takes no part in what containerd or the store remove. Each has names of its
// own for a file that stays as long as one of them is there: containerd's garbage
// collection takes the links that it does not use, and the store evicts as
// before. (TestSeededOutlivesStore, TestSeed, TestSeedAgainstRemoval)
//
// Where it cannot work it does nothing, and says why once: containerd's folder is
// not there, is none, or is on another file system or mount. It is looked at again
// while images are asked for. It is never made. (TestFolder,
// TestFolderOnOtherMount, TestSeedWaitsForFolder)
package seed
