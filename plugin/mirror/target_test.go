package mirror

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// What a URL means is the same the second time, and only what means something is
// remembered, within bounds.
func TestTargets(t *testing.T) {
	t.Parallel()
	mapped := 0
	s := New(stored{}, Options{Map: func(ns, path string) (remotes.Repository, error) {
		mapped++
		return remotes.NewRepository(ns, path)
	}})
	dgst := digest.FromString("x").String()
	for path, remembered := range map[string]bool{
		"/v2/library/app/manifests/1?ns=docker.io":            true,
		"/v2/library/app/manifests/" + dgst + "?ns=docker.io": true,
		"/v2/library/app/blobs/" + dgst + "?ns=docker.io":     true,
		"/v2/library/app/blobs/nothing?ns=docker.io":          true, // its digest is parsed each time
		"/v2/library/app/manifests/-?ns=docker.io":            false,
		"/v2/library/App/manifests/1?ns=docker.io":            false,
		"/v2/library/app/manifests/1?ns=docker.io&ns=quay.io": false,
		"/v2/library/app/tags/list?ns=docker.io":              false,
		"/v2/library/app/referrers/" + dgst + "?ns=docker.io": false,
		"/v2/": false,
		"/v2/library/app/manifests/1?ns=docker.io&x=" + strings.Repeat("x", maxTargetSize): false,
	} {
		u, err := url.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		first, firstErr := s.locate(u)
		before := mapped
		second, secondErr := s.locate(u)
		if first.request != second.request || first.ref != second.ref || fmt.Sprint(firstErr, first.refErr) != fmt.Sprint(secondErr, second.refErr) {
			t.Errorf("%.60s: got %+v, %v, then %+v, %v", path, *first, firstErr, *second, secondErr)
		}
		if _, ok := s.targets.get(u.Path, u.RawQuery); ok != remembered || remembered && mapped != before {
			t.Errorf("%.60s: remembered %v, want %v; mapped %d times the second time", path, ok, remembered, mapped-before)
		}
	}
	for i := range 2 * maxTargets {
		if _, err := s.locate(&url.URL{Path: fmt.Sprintf("/v2/library/app/manifests/%d", i), RawQuery: "ns=docker.io"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.targets.all.Len(); n != maxTargets {
		t.Errorf("%d are remembered, want %d", n, maxTargets)
	}
}

// TestTargetsKeepNoMore has URLs that are a small part of a large text, as those of
// requests are a part of their first line: that is not kept with them.
func TestTargetsKeepNoMore(t *testing.T) {
	t.Parallel()
	s := New(stored{}, Options{Map: remotes.NewRepository})
	line := "HEAD http://" + strings.Repeat("x", 10_000) + "/v2/library/app/manifests/1?ns=docker.io HTTP/1.1"
	u, err := url.ParseRequestURI(strings.Fields(line)[1])
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.locate(u)
	if err != nil {
		t.Fatal(err)
	}
	isPart := func(text string) bool {
		first, at := uintptr(unsafe.Pointer(unsafe.StringData(line))), uintptr(unsafe.Pointer(unsafe.StringData(text)))
		return at >= first && at < first+uintptr(len(line))
	}
	if !isPart(u.Path) {
		t.Fatal("the URL is a copy already: nothing is shown")
	}
	for _, text := range append([]string{got.name, got.ns, got.object, got.ref.Host, got.ref.Path, got.ref.Tag}, s.targets.all.Keys()[0].path, s.targets.all.Keys()[0].query) {
		if isPart(text) {
			t.Errorf("%q is a part of the request's first line still", text)
		}
	}
}

// A manifest that is served from memory is gone as soon as its file is: the next
// client gets it from upstream, and it is stored again.
func TestManifestHealsAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1})
	want := b.up.PutImage("library/app", "1", img)
	path := filepath.Join(b.root, "blobs", "sha256", want.Digest.Encoded())
	for _, object := range []string{"1", want.Digest.String()} {
		// Until it is answered from memory: not while its file is young.
		eventually(t, "the manifest is in memory", func() bool {
			b.get(manifestPath(object))
			_, ok := b.store.ManifestInMemory(want.Digest)
			return ok
		})
		if a := b.get(manifestPath(object)); a.header.Get(CacheHeader) != string(remotes.Hit) || digest.FromBytes(a.body) != want.Digest {
			t.Errorf("%s: %v", object, a.header)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		gets := b.up.Count(http.MethodGet, "/manifests/")
		if a := b.get(manifestPath(object)); a.header.Get(CacheHeader) == string(remotes.Hit) || digest.FromBytes(a.body) != want.Digest {
			t.Errorf("%s, the file gone: %v", object, a.header)
		}
		if n := b.up.Count(http.MethodGet, "/manifests/") - gets; n != 1 {
			t.Errorf("%s, the file gone: upstream was asked for it %d times, want once", object, n)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s: not stored again: %v", object, err)
		}
	}
}
