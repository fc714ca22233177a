// Package ranged makes one body, in order, of parts of a blob that come by
// several connections, and finds out how many connections are worth it. It knows
// no HTTP: a [Source] opens parts.
//
// A [Body] begins as one connection does. What it reads next is asked for while
// it reads, as a leap: a range as long as nothing else will be tried. If the
// [Governor] gives it more connections, these fetch parts of 2 MiB behind the
// leap into memory, and so does the first one when its leap is over.
//
// # Promises
//
// More connections are used where they are faster, and not where they are not.
// They are doubled on trial, stay if all of the host's together become faster by
// a fifth, and go else, or when it turns out later that fewer were faster. Nothing
// is tried for 2 s after it was of no use, then 4, 8 and 10, for a minute after the
// upstream refused, and never if one connection brings 128 MiB a second, or all
// together 192 MiB for each processor of this machine. What other bodies begin and end
// does not count, and makes who came in addition leave. (TestSpeedup, TestGovernor,
// TestGovernorRests, TestGovernorOthers, TestGovernorGoesBack, TestGovernorForgets, TestGovernorSlowOpening, TestNoPlaces)
//
// The first byte waits for nothing, and no byte comes twice: all ranges end
// where the next one begins. Only if an upstream stops to send parts do those
// come again that were ahead of the one that it did not send. (TestSpeedup,
// TestFaults, TestIgnored, TestProperty)
//
// Bytes come in order and as they were sent. What is missing of a part that was
// cut, was short, or is silent for 10 s while others are not, is asked for once
// more by the connection that the body has anyhow; what is wrong then is the
// reader's error, behind all bytes before it. After a refusal, or three cuts, all
// the rest comes by that one. If all are silent nobody is blamed.
// (TestFaults, TestError, TestSilentLine, TestProperty, FuzzBody)
//
// Memory is promised to a part before it is asked for, from what all bodies
// share. Who gets none goes on by one connection, and nobody waits for it.
// (TestMemoryIsShared, TestSlowReader)
//
// A Body ends with its context. When Close returns nothing of it runs, and all
// that it had is given back. (TestClose, TestProperty)
package ranged
