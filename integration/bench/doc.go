// The bench command measures larder beside others that do the same work, on one
// machine, in turns: "make bench". docs/performance.md says how to read what it writes.
//
// It is a program and not a test: a run has flags, takes longer than a test may, writes
// files, starts itself once more as the client, and has to be the only thing that runs.
// Its parts have tests. Of larder it knows the binary alone, so that it can measure
// older ones.
//
// What it keeps to:
//   - Counts are gates, times are reports: a wrong digest, a wrong length, a byte that
//     upstream was asked for once too often, or a wait that runs out has the experiment
//     fail. No time ever does. (TestFetchWhole, TestQuietly, TestCheckStore,
//     TestRoundsFail)
//   - All contestants are measured once a round, each second round backwards.
//     (TestRoundsAlternate)
//   - What grows is measured at each step once a round, too, and is an error where
//     upstream is asked for what is stored. (TestGrowthIsMeasured, TestRoundsGrow,
//     TestRunning)
//   - The same recipe makes the same image, on every machine. (TestImagesAreTheSame)
//   - Upstream counts the bytes that it has sent, ranges included. (TestUpstreamCounts)
//   - An upstream that refuses, is silent, or drops packets does so without root.
//     (TestDeaths)
//   - The table goes between the marks of a document, and nothing else of it changes.
//     (TestDocument)
//   - It leaves nothing behind but its report, and the programs of Debian that it has
//     unpacked into bin/debian.
package main
