// Package remotestest holds a scripted OCI registry and a builder of images,
// for tests of everything that pulls.
//
// A [Registry] listens on loopback and answers the read part of the OCI
// distribution API from memory. Content is put in by direct calls, so a test
// says in one line what upstream has. Every request is recorded, and any
// answer can be bent by a fault: a body that hangs, is cut, is wrong, ends
// cleanly too early.
//
// Promises:
//   - Faults are exact. A byte count in a fault is a count of body bytes of
//     one response, and those bytes are flushed before the fault acts.
//   - Nothing waits on wall time, except [Slow], whose purpose that is.
//     [Registry.Await] waits on requests, [Gate] holds a body until released.
//   - [Build] is a function of its argument: the same spec gives the same
//     bytes within one test binary, and its images unpack in a real containerd.
//   - All listeners, connections and goroutines are gone when the test ends.
//
// A Registry and its faults may be used from many goroutines at once.
package remotestest
