package remotes

import (
	"strings"

	"github.com/opencontainers/go-digest"
)

// cosignSuffixes end cosign's tags: signatures, attestations, SBOMs.
func cosignSuffixes() []string { return []string{".sig", ".att", ".sbom"} }

// subjectOf returns the digest of the image that a tag of cosign's belongs to,
// "" for other tags.
func subjectOf(tag string) digest.Digest {
	for _, suffix := range cosignSuffixes() {
		name, ok := strings.CutSuffix(tag, suffix)
		hex, sha256 := strings.CutPrefix(name, "sha256-")
		if dgst := digest.NewDigestFromEncoded(digest.SHA256, hex); ok && sha256 && dgst.Validate() == nil {
			return dgst
		}
	}
	return ""
}

// companionTag is cosign's tag for what belongs to a digest. Only sha256 fits
// into a tag.
func companionTag(repo Repository, subject digest.Digest, suffix string) (ref Reference, ok bool) {
	ref = Reference{Repository: repo, Tag: subject.Algorithm().String() + "-" + subject.Encoded() + suffix}
	return ref, subjectOf(ref.Tag) == subject
}
