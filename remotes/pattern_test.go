package remotes

import (
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/upstream"
)

func TestPattern(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"*:latest", "docker.io/library/nginx:latest", true},
		{"*:latest", "docker.io/library/nginx:latest-1", false},
		{"quay.io/*", "quay.io/a/b:c", true},
		{"quay.io/*", "xquay.io/a", false},
		{"*", "", true},
		{"a.b", "aXb", false},
		{"a*c*e", "abcde", true},
		{"a*c*e", "abde", false},
		{"[a]+", "[a]+", true},
		{"[a]+", "aa", false},
	} {
		p, err := ParsePattern(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Match(c.text); got != c.want || p.String() != c.pattern {
			t.Errorf("%q on %q: got %t, want %t", p, c.text, got, c.want)
		}
	}
	if _, err := ParsePattern(""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("empty pattern: got %v, want it refused", err)
	}
	if (Pattern{}).Match("") {
		t.Error("the zero pattern matches")
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	eps := []upstream.Endpoint{{Scheme: "http", Host: "a:1"}, {Scheme: "https", Host: "b.example"}}
	rs, err := NewRoutes(map[string][]upstream.Endpoint{"quay.io": eps})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"quay.io":          "http://a:1",
		"docker.io":        "https://registry-1.docker.io",
		"other.example:99": "https://other.example:99",
	} {
		if got := rs.For(host)[0].String(); got != want {
			t.Errorf("%s: first upstream is %s, want %s", host, got, want)
		}
	}
	if n := len(rs.For("quay.io")); n != 2 {
		t.Errorf("quay.io has %d upstreams, want 2", n)
	}
	if _, err := NewRoutes(map[string][]upstream.Endpoint{"quay.io": nil}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("route without upstreams: got %v, want it refused", err)
	}
}
