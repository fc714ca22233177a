package remotes

import (
	"errors"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
)

// isLinked reports whether a manifest is stored as one of the repository's.
func (r *Registry) isLinked(repo Repository, dgst digest.Digest) bool {
	if _, err := r.Store.Link(repo.String(), dgst); err != nil {
		return false
	}
	has, err := r.Store.Has(dgst)
	return has && err == nil
}

// noteLink records that a manifest belongs to a repository.
func (r *Registry) noteLink(repo Repository, dgst digest.Digest) error {
	_, err := r.Store.Link(repo.String(), dgst)
	if errdefs.IsNotFound(err) {
		err = r.Store.PutLink(cache.Link{Repository: repo.String(), Digest: dgst, Created: time.Now()})
	}
	return err
}

// noteFound records that a manifest belongs to a repository, and that one of its
// upstreams has sent it.
func (r *Registry) noteFound(repo Repository, dgst digest.Digest) error {
	held, err := r.Store.Holds(dgst, repo.String())
	if err != nil || held {
		return errors.Join(err, r.noteLink(repo, dgst))
	}
	link, err := r.Store.Link(repo.String(), dgst)
	if errdefs.IsNotFound(err) {
		link, err = cache.Link{Repository: repo.String(), Digest: dgst, Created: time.Now()}, nil
	}
	if err != nil {
		return err
	}
	return r.Store.PutFound(link)
}

// noteAsked marks a manifest as wanted by its digest. A manifest that this
// repository never gave is not marked: anyone can ask for anything.
func (r *Registry) noteAsked(repo Repository, dgst digest.Digest) error {
	return r.changeLink(repo, dgst, func(l *cache.Link) { l.Asked = true })
}

// noteWanted is noteAsked for a client that may be no person: who verifies a
// signature asks for it by digest, and does not want it listed.
func (r *Registry) noteWanted(repo Repository, dgst digest.Digest) error {
	link, err := r.Store.Link(repo.String(), dgst)
	if err == nil && link.Companion {
		return nil
	}
	return r.noteAsked(repo, dgst)
}

// forgetAsked has a digest no longer listed.
func (r *Registry) forgetAsked(ref Reference) error {
	return r.changeLink(ref.Repository, ref.Digest, func(l *cache.Link) { l.Asked = false })
}

// noteCompanion marks a manifest as belonging to an image: that a client asks
// for it by digest does not make it an image of its own.
func (r *Registry) noteCompanion(repo Repository, dgst digest.Digest) error {
	if err := r.noteLink(repo, dgst); err != nil {
		return err
	}
	return r.changeLink(repo, dgst, func(l *cache.Link) { l.Companion = l.Companion || !l.Asked })
}

// changeLink changes a link that is there; one that is not, stays away.
func (r *Registry) changeLink(repo Repository, dgst digest.Digest, change func(*cache.Link)) error {
	old, err := r.Store.Link(repo.String(), dgst)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	link := old
	change(&link)
	if link == old {
		return nil
	}
	return r.Store.PutLink(link)
}
