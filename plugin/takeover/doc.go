// Package takeover moves the content of a containerd that is stopped into a store and back, without a copy: by names.
//
// # Promises
//
// Nothing is lost. A blob loses its name in containerd's folder only when it has one in the store, on disk, its bytes
// are right, and the store has on record that containerd counts on it; and its record only when it has a name in
// containerd's folder again. Whoever is killed at any point runs it again. (TestKilledAnywhere, TestPowerCutAnywhere, TestPowerCutAfterKill,
// TestPowerCutBehindEject)
//
// No byte is copied: it is the same file before and after. (TestAdoptAndEject)
//
// Nothing unverified is adopted. What is damaged keeps its bytes in containerd's folder, under another name, and is
// reported with the images that need it. What the store has already is read before containerd's file is given up.
// (TestAdoptDamaged, TestAdoptOverDamaged, TestAdoptSeeded)
//
// Both work on a containerd that is stopped, and it cannot start meanwhile: they hold its database. Its own unfinished
// ingests stay where they are. (TestContainerdRuns, TestAdoptAndEject)
//
// What containerd has in its database, it has again: Eject says what of it is nowhere to be found. (TestEjectMissing,
// TestEjectWithoutIndex, TestEjectReplaces)
package takeover
