package mirror

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The golden table of refusals: for each way in which an upstream fails, what
// the client of each endpoint gets. Never 429, which containerd repeats at
// once, and never a redirect.
func TestRefusals(t *testing.T) {
	t.Parallel()
	const (
		notStored  = "larder could not get it from upstream and has not stored it: "
		denied     = "The authentication to the upstream registry failed. Verify that the credentials provided in the pull through cache rule are correct, and try again. "
		limited    = "upstream limits the rate of requests, and larder has not stored it: "
		noImage    = "Requested image not found: "
		noLayer    = "Requested layer not found: "
		noRepo     = "Requested repository not found: "
		wrongBytes = "upstream sent something else than it should have: "
	)
	type want struct {
		status                int
		code, message, reason string
	}
	same := func(w want) map[string]want { return map[string]want{"manifest": w, "digest": w, "blob": w, "tags": w} }
	unavailable := want{503, "UNAVAILABLE", notStored, "UpstreamUnavailable"}
	notFound := map[string]want{
		"manifest": {404, "MANIFEST_UNKNOWN", noImage, "ImageNotFound"},
		"digest":   {404, "MANIFEST_UNKNOWN", noImage, "ImageNotFound"},
		"blob":     {404, "BLOB_UNKNOWN", noLayer, "ImageNotFound"},
		"tags":     {404, "NAME_UNKNOWN", noRepo, "ImageNotFound"},
	}
	for name, c := range map[string]struct {
		fault remotestest.FaultFunc
		want  map[string]want
	}{
		"404":      {remotestest.Error(404, "NAME_UNKNOWN", "x"), notFound},
		"401":      {remotestest.Error(401, "UNAUTHORIZED", "x"), same(want{403, "DENIED", denied, "UpstreamAccessDenied"})},
		"403":      {remotestest.Error(403, "DENIED", "x"), same(want{403, "DENIED", denied, "UpstreamAccessDenied"})},
		"429":      {remotestest.TooManyRequests(time.Hour), same(want{503, "UNAVAILABLE", limited, "UpstreamTooManyRequests"})},
		"500":      {remotestest.Error(500, "UNKNOWN", "x"), same(unavailable)},
		"503":      {remotestest.Error(503, "UNAVAILABLE", "x"), same(unavailable)},
		"508":      {remotestest.Error(508, "UNSUPPORTED", "x"), same(unavailable)},
		"abort":    {remotestest.Abort(), same(unavailable)},
		"hang":     {remotestest.Hang(), same(unavailable)},
		"redirect": {remotestest.RedirectTo("http://169.254.169.254/latest/meta-data"), same(unavailable)},
		"no image": {remotestest.Status(200, http.Header{"Docker-Content-Digest": {someDigest}}, "<html>"), map[string]want{
			"digest": {502, "UNAVAILABLE", wrongBytes, "UpstreamUnavailable"},
			"blob":   {502, "UNAVAILABLE", wrongBytes, ""},
			"tags":   {502, "UNAVAILABLE", wrongBytes, "UpstreamUnavailable"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(s *setup) { s.header = 100 * time.Millisecond })
			b.up.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{}))
			b.up.Fault(remotestest.Any(), c.fault)
			for endpoint, path := range map[string]string{
				"manifest": manifestPath("1"), "digest": manifestPath(digest.FromString("x").String()),
				"blob": blobPath(digest.FromString("y")), "tags": "/v2/library/app/tags/list" + hub,
			} {
				w, ok := c.want[endpoint]
				if !ok {
					continue
				}
				a, head := b.ask(http.MethodGet, path), b.ask(http.MethodHead, path)
				e := a.entry()
				if a.status != w.status || e.Code != w.code || !strings.HasPrefix(e.Message, w.message) || e.Detail.Reason != w.reason {
					t.Errorf("%s: got %d %+v\nwant %+v", endpoint, a.status, e, w)
				}
				if !strings.HasSuffix(e.Message, " "+e.Detail.Cause) || !strings.Contains(e.Detail.Cause, b.up.Host()) {
					t.Errorf("%s: cause %q: want it in the message, and the upstream in it", endpoint, e.Detail.Cause)
				}
				if a.err != nil || a.length != int64(len(a.body)) || head.status != a.status || len(head.body) != 0 {
					t.Errorf("%s: GET: %d of %d bytes, %v; HEAD: %d with %d bytes", endpoint, len(a.body), a.length, a.err, head.status, len(head.body))
				}
				for _, key := range []string{"ETag", "Docker-Content-Digest", CacheHeader, "Location", "Retry-After"} {
					if got := a.header.Get(key); got != "" {
						t.Errorf("%s: a refusal with %s: %s", endpoint, key, got)
					}
				}
				if got := a.header.Get("Cache-Control"); got != "no-store" {
					t.Errorf("%s: Cache-Control %q", endpoint, got)
				}
			}
		})
	}
}

// Referrers that do not exist are an empty list (distribution specification).
func TestReferrersAreNeverNotFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, name := range []string{"library/app", "no/such"} {
		a := b.get("/v2/" + name + "/referrers/" + someDigest + hub + "&artifactType=a/b")
		if !strings.Contains(string(a.body), `"manifests":[]`) || a.header.Get("OCI-Filters-Applied") != "artifactType" || a.header.Get("Content-Type") != ocispec.MediaTypeImageIndex {
			t.Errorf("%s: got %v %s", name, a.header, a.body)
		}
	}
}

// TestReferrersOfStoredImage: the header says where a list came from, and the
// filter holds for stored lists, too.
func TestReferrersOfStoredImage(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	img := remotestest.Build(remotestest.ImageSpec{})
	b.up.PutImage("library/app", "1", img)
	b.up.PutReferrer("library/app", img.Root, "application/sbom")
	b.up.PutReferrer("library/app", img.Root, "application/signature")
	b.get(manifestPath("1"))
	path := "/v2/library/app/referrers/" + img.Root.Digest.String() + hub
	check := func(query, outcome string, want int) {
		t.Helper()
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			a := b.ask(method, path+query)
			var index ocispec.Index
			if method == http.MethodGet && (json.Unmarshal(a.body, &index) != nil || len(index.Manifests) != want || index.MediaType != ocispec.MediaTypeImageIndex) {
				t.Errorf("%q: got %s, want %d", query, a.body, want)
			}
			if a.status != http.StatusOK || a.header.Get("OCI-Filters-Applied") != strings.TrimPrefix(strings.Split(query, "=")[0], "&") {
				t.Errorf("%s %q: got %d %v", method, query, a.status, a.header)
			}
			if got := a.header.Get(CacheHeader); got != outcome && outcome != "miss" {
				t.Errorf("%s %q: %s %s, want %s", method, query, CacheHeader, got, outcome)
			}
		}
	}
	check("", "miss", 2)
	check("&artifactType=application/signature", "hit", 1)
	check("&artifactType=a/b", "hit", 0)
	b.up.Stop()
	err := b.store.ChangeReferrers("docker.io/library/app", img.Root.Digest, func(rf *cache.Referrers) { rf.Validated = rf.Validated.Add(-25 * time.Hour) })
	if err != nil {
		t.Fatal(err)
	}
	check("&artifactType=application/signature", "stale", 1)
	if !strings.Contains(b.log.String(), "serving stale referrers") {
		t.Error("the log does not tell why")
	}
}

func TestUnlistedRegistry(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(s *setup) { s.listed = map[string]bool{"docker.io": true} })
	b.up.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{}))
	b.get(manifestPath("1"))
	a := b.ask(http.MethodGet, "/v2/library/app/manifests/1?ns=quay.io")
	if a.status != http.StatusForbidden || a.entry().Code != "DENIED" || !strings.HasPrefix(a.entry().Message, "larder is configured not to serve this: registry host quay.io is not listed") {
		t.Errorf("got %d %+v, want 403", a.status, a.entry())
	}
}

// What a rule says against an answer, the client reads: what is denied or
// offline, and by which rule. A tag that upstream has deleted is an image that is
// not found, also while upstream is not asked again.
func TestRefusedByRule(t *testing.T) {
	t.Parallel()
	window := time.Duration(0)
	for name, c := range map[string]struct {
		settings remotes.Settings
		status   int
		code     string
		message  string
	}{
		"deny":    {remotes.Settings{Deny: []string{"library/app"}}, 403, "DENIED", `larder is configured not to serve this: repository docker.io/library/app is denied by rule "hub"`},
		"allow":   {remotes.Settings{Allow: []string{"x"}}, 403, "DENIED", `larder is configured not to serve this: repository docker.io/library/app is not allowed by rule "hub"`},
		"offline": {remotes.Settings{Mode: remotes.ModeOffline}, 503, "UNAVAILABLE", `larder could not get it from upstream and has not stored it: docker.io/library/app is offline by rule "hub"`},
		"gone":    {remotes.Settings{Deleted: remotes.DeletedRefuse, Window: &window}, 404, "MANIFEST_UNKNOWN", "Requested image not found"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules, err := remotes.NewRules([]remotes.Rule{{ECRRepositoryPrefix: "hub", UpstreamRegistryURL: "docker.io", Settings: c.settings}}, false)
			if err != nil {
				t.Fatal(err)
			}
			policies, err := remotes.NewPolicies(remotes.Policy{}).WithRules(rules, nil)
			if err != nil {
				t.Fatal(err)
			}
			b := newBench(t, func(s *setup) { s.policies = policies })
			b.up.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{}))
			if name == "gone" {
				b.get(manifestPath("1"))
				b.up.DeleteTag("library/app", "1")
			}
			for range 2 { // the second one in the pause after a failed check
				a := b.ask(http.MethodGet, manifestPath("1"))
				if a.status != c.status || a.entry().Code != c.code || !strings.HasPrefix(a.entry().Message, c.message) {
					t.Errorf("got %d %+v, want %d %s %s", a.status, a.entry(), c.status, c.code, c.message)
				}
			}
			for _, kind := range []string{": permission denied", ": unavailable", ": not found"} {
				if e := b.ask(http.MethodGet, manifestPath("1")).entry(); strings.HasSuffix(e.Message, kind) || strings.HasSuffix(e.Detail.Cause, kind) {
					t.Errorf("%+v ends in words for programs", e)
				}
			}
			if name != "gone" && len(b.up.Requests()) != 0 {
				t.Errorf("upstream saw %d requests, want 0", len(b.up.Requests()))
			}
		})
	}
}

// A name that nothing covers is told in ECR's words, and what to do once.
func TestRefusedWithoutRule(t *testing.T) {
	t.Parallel()
	a := newBench(t).ask(http.MethodGet, "/v2/nope/app/manifests/1")
	if m := a.entry().Message; a.status != http.StatusNotFound || strings.Count(m, "no rule covers it") != 1 ||
		!strings.HasPrefix(m, "The repository with name 'nope/app' does not exist in the registry: ") || strings.HasSuffix(m, ": not found") {
		t.Errorf("got %d %s", a.status, m)
	}
}

// A hung upstream is answered for in Options.Wait, and what was begun goes on.
func TestHungUpstream(t *testing.T) {
	t.Parallel()
	const wait = 150 * time.Millisecond
	b := newBench(t, func(s *setup) { s.wait, s.header = wait, 30*time.Second })
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1})
	b.up.PutImage("library/app", "1", img)
	layer := img.Blobs[1].Descriptor.Digest
	release := make(chan struct{})
	b.up.Fault(remotestest.Any(), remotestest.GateHeader(release))
	for _, path := range []string{
		manifestPath("1"), manifestPath(img.Root.Digest.String()), blobPath(layer),
		"/v2/library/app/tags/list" + hub, "/v2/library/app/referrers/" + someDigest + hub,
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			start := time.Now()
			a := b.ask(method, path)
			if took := time.Since(start); took < wait || took > 20*time.Second {
				t.Errorf("%s %s: took %s, want about %s", method, path, took, wait)
			}
			if a.status != http.StatusServiceUnavailable {
				t.Errorf("%s %s: %d, want 503", method, path, a.status)
			}
			if method == http.MethodGet && !strings.Contains(a.entry().Message, "upstream has not answered in") {
				t.Errorf("%s: message %q", path, a.entry().Message)
			}
		}
	}
	close(release)
	eventually(t, "the fill ends", func() bool {
		has, err := b.store.Has(layer)
		return has && err == nil
	})
	eventually(t, "the check ends", func() bool {
		_, err := b.store.Tag("docker.io/library/app:1")
		return err == nil
	})
	b.up.Stop()
	b.get(manifestPath("1"))
	b.get(blobPath(layer))
}

func TestTagPages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	img := remotestest.Build(remotestest.ImageSpec{})
	for _, tag := range []string{"a", "b", "c", "d", "e"} {
		b.up.PutImage("library/app", tag, img)
	}
	// Follow the links to the end.
	var pages []string
	for path := "/v2/library/app/tags/list" + hub + "&n=2"; path != ""; {
		a := b.get(path)
		pages = append(pages, string(a.body))
		path = ""
		if link := a.header.Get("Link"); link != "" {
			if _, err := fmt.Sscanf(link, "<%s", &path); err != nil {
				t.Fatal(err)
			}
			path = strings.TrimSuffix(path, ">;")
		}
		if len(pages) > 5 {
			t.Fatal("the links lead nowhere")
		}
	}
	if want := `[{"name":"library/app","tags":["a","b"]} {"name":"library/app","tags":["c","d"]} {"name":"library/app","tags":["e"]}]`; fmt.Sprint(pages) != want {
		t.Errorf("got %v\nwant %s", pages, want)
	}
	for query, want := range map[string]string{
		"":                `["a","b","c","d","e"]`,
		"&n=0":            `[]`,
		"&n=2147483647":   `["a","b","c","d","e"]`,
		"&last=d":         `["e"]`,
		"&n=1&last=b":     `["c"]`,
		"&last=%20%00%ff": `["a","b","c","d","e"]`,
	} {
		a := b.get("/v2/library/app/tags/list" + hub + query)
		if !strings.Contains(string(a.body), `"tags":`+want) || query == "&n=0" && a.header.Get("Link") != "" {
			t.Errorf("%s: got %s, Link %q, want %s", query, a.body, a.header.Get("Link"), want)
		}
	}
	if a := b.ask(http.MethodGet, "/v2/no/such/tags/list"+hub+"&n=0"); a.status != http.StatusNotFound {
		t.Errorf("n=0 of an unknown repository: %d, want 404", a.status)
	}
}
