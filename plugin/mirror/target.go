package mirror

import (
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/larder-project/larder/remotes"
)

// target is a request, and what its texts mean.
type target struct {
	request
	repo remotes.Repository
	// ref is the manifest that is asked for, refErr why the text is none.
	ref    remotes.Reference
	refErr error
}

const (
	// maxTargets bounds how many URLs are remembered, maxTargetSize the bytes of
	// each: a usual one takes 500 with what it means.
	maxTargets    = 12 << 10
	maxTargetSize = 512
)

// targets are URLs of manifests and blobs that were asked for lately and mean
// something. Names are mapped in one way as long as larder runs, and to check
// them costs more than to serve what they name. It is safe for concurrent use.
type targets struct {
	all *lru.Cache[targetKey, *target]
}

// targetKey is all of a URL that parseRequest looks at.
type targetKey struct{ path, query string }

func newTargets() targets {
	all, _ := lru.New[targetKey, *target](maxTargets) // fails only for a size below 1
	return targets{all}
}

func (ts targets) get(path, query string) (*target, bool) {
	return ts.all.Get(targetKey{path, query})
}

func (ts targets) add(u *url.URL, t *target) {
	isContent := t.kind == kindBlob || t.kind == kindManifest && t.refErr == nil
	if isContent && len(u.Path)+len(u.RawQuery) <= maxTargetSize {
		ts.all.Add(targetKey{u.Path, u.RawQuery}, t)
	}
}

// ownURL is what is looked at of a URL, in memory of its own: the texts of a request are
// parts of its first line, all of which they would keep.
func ownURL(u *url.URL) *url.URL {
	return &url.URL{Path: strings.Clone(u.Path), RawQuery: strings.Clone(u.RawQuery)}
}

// locate takes a URL apart and maps its name. A ping has no repository. The target
// is shared, and not to be changed; with an error, its request is as far as it was
// understood.
func (s *Server) locate(u *url.URL) (*target, error) {
	if t, ok := s.targets.get(u.Path, u.RawQuery); ok {
		return t, nil
	}
	u = ownURL(u)
	t := &target{}
	var err error
	if t.request, err = parseRequest(u); err != nil || t.kind == kindPing {
		return t, err
	}
	t.repo, err = s.options.Map(t.ns, t.name)
	if errdefs.IsInvalidArgument(err) {
		err = invalid("NAME_INVALID", err)
	}
	if err != nil {
		return t, err
	}
	if t.kind == kindManifest {
		t.ref, t.refErr = t.repo.WithObject(t.object)
	}
	s.targets.add(u, t)
	return t, nil
}
