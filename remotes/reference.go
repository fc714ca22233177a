package remotes

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Repository names a repository as image names do: the registry host and the
// path there. It is the key under which larder keeps tags and manifests.
type Repository struct {
	// Host is the canonical registry host: see ParseHost.
	Host string
	// Path is the repository's path, for instance "library/nginx".
	Path string
}

// NewRepository checks both parts against the grammar of
// distribution/reference. It returns errdefs.ErrInvalidArgument otherwise.
func NewRepository(host, path string) (Repository, error) {
	h, err := ParseHost(host)
	if err != nil {
		return Repository{}, err
	}
	if err := checkPath(path); err != nil {
		return Repository{}, err
	}
	return Repository{Host: h, Path: path}, nil
}

// checkPath checks a repository's path.
func checkPath(path string) error {
	named, err := reference.WithName(DockerHub + "/" + path)
	if err != nil || reference.Path(named) != path {
		return fmt.Errorf("repository %.80q: not a repository name: %w", path, errdefs.ErrInvalidArgument)
	}
	return nil
}

// String returns host/path.
func (r Repository) String() string { return r.Host + "/" + r.Path }

// Reference is a repository with a tag or a digest. If both are set, the
// digest decides.
type Reference struct {
	Repository
	Tag    string
	Digest digest.Digest
}

// WithObject completes a repository by what stands behind /manifests/: a tag
// or a digest. It returns errdefs.ErrInvalidArgument for text that is neither.
func (r Repository) WithObject(object string) (Reference, error) {
	if dgst, err := digest.Parse(object); err == nil {
		return Reference{Repository: r, Digest: dgst}, nil
	}
	named, err := reference.WithName(r.String())
	if err != nil {
		return Reference{}, fmt.Errorf("repository %q: %w: %w", r, err, errdefs.ErrInvalidArgument)
	}
	if _, err := reference.WithTag(named, object); err != nil {
		return Reference{}, fmt.Errorf("reference %.80q: neither a tag nor a digest: %w", object, errdefs.ErrInvalidArgument)
	}
	return Reference{Repository: r, Tag: object}, nil
}

// String returns host/path:tag, host/path@digest, or both.
func (r Reference) String() string {
	s := r.Repository.String()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// name is the reference by what decides: the name of the image in the store.
func (r Reference) name() string {
	if r.Digest != "" {
		r.Tag = ""
	}
	return r.String()
}

// parseName parses what Reference.String wrote, and nothing else: unlike
// ParseReference it adds no host, no library/ and no tag.
func parseName(s string) (Reference, error) {
	host, rest, _ := strings.Cut(s, "/")
	path, dgst, byDigest := strings.Cut(rest, "@")
	var tag string
	if i := strings.LastIndexByte(path, ':'); i >= 0 {
		path, tag = path[:i], path[i+1:]
	}
	repo, err := NewRepository(host, path)
	if err != nil {
		return Reference{}, err
	}
	ref := Reference{Repository: repo}
	for _, object := range []string{tag, dgst} {
		if object == "" {
			continue
		}
		part, err := repo.WithObject(object)
		if err != nil {
			return Reference{}, err
		}
		ref.Tag, ref.Digest = cmp.Or(part.Tag, ref.Tag), cmp.Or(part.Digest, ref.Digest)
	}
	if ref.String() != s || byDigest != (ref.Digest != "") {
		return Reference{}, fmt.Errorf("name %.200q: not as larder writes it: %w", s, errdefs.ErrInvalidArgument)
	}
	return ref, nil
}

// ParseReference parses a reference as a person types it: short names are
// Docker Hub's, and a missing tag is latest. It returns
// errdefs.ErrInvalidArgument with the parser's reason.
func ParseReference(s string) (Reference, error) {
	named, err := reference.ParseDockerRef(s)
	if err != nil {
		return Reference{}, fmt.Errorf("reference %.200q: %w: %w", s, err, errdefs.ErrInvalidArgument)
	}
	repo, err := NewRepository(reference.Domain(named), reference.Path(named))
	if err != nil {
		return Reference{}, err
	}
	ref := Reference{Repository: repo}
	if t, ok := named.(reference.Tagged); ok {
		ref.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		ref.Digest = d.Digest()
	}
	return ref, nil
}
