package remotes

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
)

// Pin keeps an image from being removed. It need not be stored yet.
func (r *Registry) Pin(ref Reference, reason string) (cache.Pin, error) {
	p := cache.Pin{Name: ref.name(), Reason: reason, Created: time.Now()}
	return p, r.Store.PutPin(p)
}

// Unpin removes a pin, or returns errdefs.ErrNotFound.
func (r *Registry) Unpin(ref Reference) error {
	err := r.Store.DeletePin(ref.name())
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("%s is not pinned: %w", ref, errdefs.ErrNotFound)
	}
	return err
}

// isPinned reports whether a digest that is stored is pinned under this name.
func (r *Registry) isPinned(ref Reference) bool {
	if _, err := r.Store.Pin(ref.name()); err != nil {
		return false
	}
	has, err := r.Store.Has(ref.Digest)
	return has && err == nil
}
