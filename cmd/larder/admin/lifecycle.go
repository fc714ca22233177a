package admin

import (
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes"
)

func (s *server) history(r *http.Request) (any, error) {
	ref, err := s.reference(r)
	if err != nil {
		return nil, err
	}
	if ref.Digest != "" {
		return nil, fmt.Errorf("%s: a digest has no history, it never changes: name a tag: %w", ref, errdefs.ErrInvalidArgument)
	}
	h, err := s.registry.Store.History(ref.String())
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("%s was never stored here, or is forgotten: %w", ref, errdefs.ErrNotFound)
	}
	return h, err
}

func (s *server) lifecycle(r *http.Request) (any, error) {
	repo, err := s.repository(r)
	if err != nil {
		return nil, err
	}
	reports, err := s.registry.Lifecycle(r.Context(), repo)
	return LifecycleResult{Repositories: reports}, err
}

func (s *server) runLifecycle(r *http.Request) (any, error) {
	repo, err := s.repository(r)
	if err != nil {
		return nil, err
	}
	reports, removed, err := s.registry.ExpireImages(r.Context(), repo)
	return LifecycleResult{Repositories: reports, Removed: &removed}, err
}

// repository reads the ref parameter as a repository; nil if there is none.
func (s *server) repository(r *http.Request) (*remotes.Repository, error) {
	text := r.URL.Query().Get("ref")
	if text == "" {
		return nil, nil
	}
	ref, err := remotes.ParseReference(text)
	if err != nil {
		return nil, err
	}
	// A missing tag is read as latest.
	if again, err := remotes.ParseReference(text + ":latest"); err != nil || again != ref {
		return nil, fmt.Errorf("%s: a lifecycle policy is a repository's: leave tag and digest away: %w", text, errdefs.ErrInvalidArgument)
	}
	repo, err := s.registry.Names.Map(ref.Host, ref.Path)
	if err != nil {
		return nil, fmt.Errorf("repository %q: %w", text, err)
	}
	return &repo, nil
}
