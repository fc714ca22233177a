// Package cri asks the node's container runtime, over version 1 of the
// Kubernetes Container Runtime Interface, which images its containers use. It
// asks and changes nothing, and knows nothing of larder.
//
// # Promises
//
// In use are the images of containers that have not exited, whatever else is
// known of them, of all containers of pods that are ready, and of these pods'
// sandboxes: of each its image ID (the digest of its config), the digests under which the runtime knows it,
// and its references, with the pod that uses it.
// (TestInUse, TestSandboxImage)
//
// What cannot be read is no sign that an image is free. An answer is whole or
// an error, and beside an error comes the last whole answer, with its time.
// (TestLastAnswerStays, TestNothingHalf)
//
// Time and size of an answer are bounded, whoever listens on the socket. The
// error of a runtime that does not answer says what to do.
// (TestSilentRuntime, TestHugeAnswer, TestUnreachable)
package cri
