// Package line is a slow network: a relay in front of a server on loopback, for
// machines whose kernel has no netem, or whose user is not root.
//
// A line has a round trip, a rate that all its connections share, and one that each
// has for itself. It models neither loss nor slow start, so that it is kinder to many
// small connections than the real thing.
//
// Promises:
//   - The answer to the first request of a connection begins two round trips behind
//     the client's connect, one for TCP's handshake, and to a later one after one.
//     (TestRoundTrips)
//   - The shared rate and that of each connection hold over any time longer than some
//     milliseconds; connections that want more than there is have equal parts.
//     (TestRatePerConnection, TestSharedRate)
//   - Bytes come as they were sent, an end of one direction comes behind them, and the
//     end of either side ends both. (TestBytesAndEnds, TestOverTCP)
//   - After Close nothing of it is left. (TestOverTCP)
package line
