// Package containerdconf puts larder's proxy plugins into containerd's configuration and takes them out again.
//
// All that larder says is in one file of its own in the folder of drop-ins that containerd's main file imports. Where
// that imports none, one line is added to it. containerd reads its configuration when it starts; this package does not
// restart it.
//
// The package promises:
//
//   - Nothing else changes. containerd's own `config dump` is asked before and after: where the configuration came to
//     anything but what the mode needs, all files are put back. (TestApply, TestApplyRefuses, TestApplyOldContainerd)
//   - Every file of others stays as it is but for the line, and is kept as config.toml.before-larder; Undo puts it back,
//     byte for byte. (TestApplyAndUndo, TestUndoKeepsOthers)
//   - A node is not broken: a mode that containerd cannot do, a second content store, or content that would not be
//     found any more is refused, with errdefs.ErrFailedPrecondition and what to do. (TestApplyRefuses, TestLeavingProxy,
//     TestLeavingProxyWithNothing)
//   - A crash at any point leaves each file whole, old or new, and the next run, or Undo, finishes. (TestCrashAnywhere, TestKill9, TestPutBack)
//   - A file of larder's own that was changed by hand is left alone, unless force is asked for. (TestEditedByHand)
package containerdconf
