package cache

import "strings"

// SplitReference takes a full reference apart, as the store writes it: the
// repository, and the tag or, with isDigest, the digest. A name without either is
// a repository.
func SplitReference(name string) (repository, object string, isDigest bool) {
	if repository, object, ok := strings.Cut(name, "@"); ok {
		return repository, object, true
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:], false
	}
	return name, "", false
}
