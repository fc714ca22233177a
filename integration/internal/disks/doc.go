// Package disks makes disks that break, for tests: file systems in a file that
// lose power, fill up, turn read-only or vanish under the program that uses
// them ([Disk]); a drive below them that fails, stalls, or keeps nothing of
// what it was told to ([Drive]); and system calls that fail in a process that
// runs ([Inject]). Product code never uses it.
//
// A power cut drops everything that was not synced: a file without an fsync is
// empty or gone afterwards, one with it is whole. (TestPowerCutDropsUnsynced)
//
// Everything is gone when the test ends, whatever happened to it: mounts, loop
// devices, files, tracers. (TestNothingIsLeft) What had to be taken away by
// force fails the test.
package disks
