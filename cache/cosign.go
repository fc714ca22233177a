package cache

import (
	"strings"

	"github.com/opencontainers/go-digest"
)

// CosignSuffixes end cosign's tags: signatures, attestations, SBOMs.
func CosignSuffixes() []string { return []string{".sig", ".att", ".sbom"} }

// SubjectOf returns the digest of the image that a tag of cosign's belongs to,
// "" for other tags.
func SubjectOf(tag string) digest.Digest {
	for _, suffix := range CosignSuffixes() {
		name, ok := strings.CutSuffix(tag, suffix)
		hex, sha256 := strings.CutPrefix(name, "sha256-")
		if dgst := digest.NewDigestFromEncoded(digest.SHA256, hex); ok && sha256 && dgst.Validate() == nil {
			return dgst
		}
	}
	return ""
}
