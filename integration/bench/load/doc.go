// Package load asks an HTTP server over and over again, at as little cost as it can,
// so that it is the server that is measured: sockets of its own with an epoll loop a
// core, requests made once, and bodies read into one buffer and forgotten.
//
// Promises:
//   - Each answer has the status 200 and the length that the plan says, or the whole
//     load is an error. What a body holds is not looked at: hashing would cost more
//     than serving. Whoever needs it hashes one answer before or after.
//     (TestWrongAnswers)
//   - An answer that comes in pieces, two that come together, and a body that is read
//     in many parts are each counted once. (TestAnswersInPieces, TestBodies)
//   - Several paths are asked for in turn, each as often as the others, within one
//     request a core. (TestTurns)
//   - A server that falls silent is an error when the plan's limit is over.
//     (TestSilence)
//   - [Start] does it in a process of its own, so that neither the collector nor the
//     file descriptors of who asks for it are in the way. (TestProcess)
package load
