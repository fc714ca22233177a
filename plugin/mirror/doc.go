// Package mirror is larder as containerd sees it: the read half of the OCI
// distribution specification over HTTP, for containerd's hosts.toml.
//
// # Promises
//
// Bytes under a digest that end cleanly hash to it. If anything goes wrong
// behind the headers, the connection is cut: a bad body that ends cleanly
// stays in containerd's ingest and breaks the next pull too. (TestAbort…)
//
// Headers come within Options.Wait, or a refusal does, so that containerd
// goes on to its next host. A refusal is 400, 403, 404, 502 or 503: containerd
// takes each as "next host". It is never 429, which containerd repeats five
// times at once, and never a redirect. (TestRefusals, TestHungUpstream)
//
// Nothing is written but through pull-through: any method except GET and
// HEAD is refused, and a name that does not exist leaves no trace.
// (TestMethods)
package mirror
