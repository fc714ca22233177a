package remotes

import (
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
)

// grip is what one pull holds. It is not for concurrent use.
type grip struct {
	store    *cache.Store
	releases []func()
}

// hold keeps a digest from being removed until release.
func (g *grip) hold(dgst digest.Digest) { g.releases = append(g.releases, g.store.Hold(dgst)) }

func (g *grip) release() {
	for _, release := range g.releases {
		release()
	}
}
