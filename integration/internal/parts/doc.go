// Package parts runs the real programs that larder stands between: containerd,
// a distribution registry, larder itself, and a meter on the wire to the
// upstream. The integration tests and the demo use it; product code never does.
//
// Registries that ask who is there are the real one too: with tokens and a
// [TokenServer], with passwords, or behind TLS. [AWS] and [ECR] are stand-ins,
// which the AWS SDK and a [Proxy] make reachable under their own names without
// any network. (TestTokenRegistry, TestHtpasswdRegistry, TestTLSRegistry,
// TestAWSForSDK, TestAWSChecksSignatures, TestECRThroughProxy, TestPrograms)
//
// Every part lives under a folder that its caller gives, listens on loopback on
// a port that the kernel chose, and is ended by its own process id. Close of a
// part ends its processes and takes its mounts away; a part whose parent dies
// without Close is killed by the kernel.
package parts
