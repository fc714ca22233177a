package remotes

import (
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
)

// companionTag is cosign's tag for what belongs to a digest. Only sha256 fits
// into a tag.
func companionTag(repo Repository, subject digest.Digest, suffix string) (ref Reference, ok bool) {
	ref = Reference{Repository: repo, Tag: subject.Algorithm().String() + "-" + subject.Encoded() + suffix}
	return ref, cache.SubjectOf(ref.Tag) == subject
}
