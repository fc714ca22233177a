package remotes

// Kind is ECR's name for the kind of the rule's upstream (API reference, enum
// UpstreamRegistry): as the rule says, or else inferred from its host. It is
// empty for a host that ECR has no name for.
func (r Rule) Kind() string {
	if r.UpstreamRegistry != "" {
		return r.UpstreamRegistry
	}
	return registryKind(r.host())
}
