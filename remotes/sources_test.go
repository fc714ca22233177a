package remotes

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/larder-project/larder/remotes/upstream"
)

// Whatever the first upstream of a route fails with, the next one answers; who
// answered, and why the first was passed over, can be told.
func TestSourcesOfRoute(t *testing.T) {
	t.Parallel()
	img := build(1)
	for name, c := range map[string]struct {
		fault  remotestest.FaultFunc
		reason string
	}{
		"404":   {remotestest.Error(http.StatusNotFound, "NAME_UNKNOWN", "unknown"), "ImageNotFound"},
		"401":   {remotestest.Error(http.StatusUnauthorized, "UNAUTHORIZED", "who"), "UpstreamAccessDenied"},
		"403":   {remotestest.Error(http.StatusForbidden, "DENIED", "no"), "UpstreamAccessDenied"},
		"429":   {remotestest.TooManyRequests(0), "UpstreamTooManyRequests"},
		"500":   {remotestest.Error(http.StatusInternalServerError, "UNKNOWN", "down"), "UpstreamUnavailable"},
		"503":   {remotestest.Error(http.StatusServiceUnavailable, "UNAVAILABLE", "down"), "UpstreamUnavailable"},
		"hang":  {remotestest.Hang(), "UpstreamUnavailable"},
		"abort": {remotestest.Abort(), "UpstreamUnavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := remotestest.New(t), remotestest.New(t)
			second.PutImage("library/app", "1", img)
			first.Fault(remotestest.Any(), c.fault)
			b := newBench(t, []*remotestest.Registry{first, second}, withFault(name))
			if b.sources.last(appRepo()) != nil {
				t.Error("somebody answered before anybody was asked")
			}
			if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil {
				t.Fatal(err)
			}
			s := b.Sources()
			if len(s.Repositories) != 1 || s.Repositories[0].Repository != appRepo().String() || s.Repositories[0].Upstream != second.URL() || time.Since(s.Repositories[0].At) > time.Minute {
				t.Errorf("answers: got %+v, want the second upstream", s.Repositories)
			}
			uses := map[string]UpstreamUse{}
			for _, u := range s.Upstreams {
				uses[u.Upstream] = u
			}
			if u := uses[first.URL()]; u.Answers != 0 || u.PassedOver[c.reason] == 0 || len(u.PassedOver) != 1 {
				t.Errorf("first upstream: got %+v, want it passed over for %s", u, c.reason)
			}
			if u := uses[second.URL()]; u.Answers == 0 || len(u.PassedOver) != 0 {
				t.Errorf("second upstream: got %+v, want answers only", u)
			}
			if img, err := b.Image(app(t, "1")); err != nil || img.AnsweredBy == nil || img.AnsweredBy.Upstream != second.URL() {
				t.Errorf("image: got answered by %+v, %v", img.AnsweredBy, err)
			}
		})
	}
}

// ECR's pull through cache answers 404 to the first pull by digest, although it
// has the tag: the origin, next in the route, gives it. The first pull of a
// repository by tag does not ask for a digest.
func TestRouteDigestMissingAtFirst(t *testing.T) {
	t.Parallel()
	img := build(1)
	ecr, origin := remotestest.New(t), remotestest.New(t)
	for _, up := range []*remotestest.Registry{ecr, origin} {
		up.PutImage("library/app", "1", img)
		up.PutImage("library/app", "known", build(2))
	}
	ecr.Fault(remotestest.Digest(img.Root.Digest), remotestest.Error(http.StatusNotFound, "MANIFEST_UNKNOWN", "Requested image not found"))
	for name, tc := range map[string]struct {
		object string
		known  bool // the repository is
		missed int64
	}{
		"digest":                    {object: img.Root.Digest.String(), missed: 1},
		"tag":                       {object: "1"},
		"tag of a known repository": {object: "1", known: true, missed: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, []*remotestest.Registry{ecr, origin})
			if tc.known {
				b.resolve(app(t, "known"), Miss)
			}
			res, err := b.Pull(soon(t), app(t, tc.object), PullOptions{})
			if err != nil || res.Descriptor.Digest != img.Root.Digest {
				t.Fatalf("got %v, %v, want the image", res, err)
			}
			answered := map[string]UpstreamUse{}
			for _, u := range b.Sources().Upstreams {
				answered[u.Upstream] = u
			}
			if ecr := answered[ecr.URL()]; ecr.PassedOver["ImageNotFound"] != tc.missed || ecr.Answers == 0 {
				t.Errorf("ECR: got %+v, want %d questions passed over, and its blobs", ecr, tc.missed)
			}
			if n := answered[origin.URL()].Answers; (n > 0) != (tc.missed > 0) {
				t.Errorf("the origin answered %d times, for %d that ECR did not", n, tc.missed)
			}
		})
	}
}

// What clients make up does not fill the memory; a caller that left and a
// failure of larder's own count for nothing.
func TestSourcesAreBounded(t *testing.T) {
	t.Parallel()
	s := newSources()
	for i := range 2 * maxAnswers {
		repo := Repository{Host: fmt.Sprintf("h%d.example", i), Path: "a"}
		s.note(repo, upstream.Endpoint{Scheme: "https", Host: repo.Host}, nil)
	}
	all := s.all()
	if len(all.Repositories) != maxAnswers || len(all.Upstreams) != maxUpstreams {
		t.Errorf("%d repositories and %d upstreams are remembered, want %d and %d", len(all.Repositories), len(all.Upstreams), maxAnswers, maxUpstreams)
	}
	if want := fmt.Sprintf("h%d.example/a", 2*maxAnswers-1); all.Repositories[0].Repository != want {
		t.Errorf("the first is %s, want the latest, %s", all.Repositories[0].Repository, want)
	}
	s = newSources()
	s.note(appRepo(), upstream.Endpoint{Host: "a.example"}, errors.New("disk is full"))
	if got := s.all(); len(got.Upstreams) != 0 {
		t.Errorf("got %+v, want nothing counted", got)
	}
	if data := mustJSON(t, s.all()); string(data) != `{"repositories":[],"upstreams":[]}` {
		t.Errorf("empty: got %s", data)
	}
	// What was given away does not change.
	ep := upstream.Endpoint{Host: "a.example"}
	s.note(appRepo(), ep, &upstream.Error{})
	given := s.all().Upstreams[0]
	before := maps.Clone(given.PassedOver)
	s.note(appRepo(), ep, &upstream.Error{})
	if !maps.Equal(given.PassedOver, before) {
		t.Errorf("given away: %v, became %v", before, given.PassedOver)
	}
}
