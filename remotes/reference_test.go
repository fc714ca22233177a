package remotes

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const emptyDigest = digest.Digest("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")

func TestParseReference(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"nginx":                                 "docker.io/library/nginx:latest",
		"nginx:1.29":                            "docker.io/library/nginx:1.29",
		"docker.io/nginx":                       "docker.io/library/nginx:latest",
		"index.docker.io/library/nginx":         "docker.io/library/nginx:latest",
		"org/app":                               "docker.io/org/app:latest",
		"quay.io/org/app:v1":                    "quay.io/org/app:v1",
		"localhost:5929/docker-hub/x:1":         "localhost:5929/docker-hub/x:1",
		"quay.io/a@" + emptyDigest.String():     "quay.io/a@" + emptyDigest.String(),
		"quay.io/a:tag@" + emptyDigest.String(): "quay.io/a@" + emptyDigest.String(),
		"registry/app":                          "docker.io/registry/app:latest",
	} {
		if ref, err := ParseReference(text); err != nil || ref.String() != want {
			t.Errorf("%q: got %v, %v, want %s", text, ref, err, want)
		}
	}
	for _, text := range []string{"", ":", "a:", "A/b", "a@sha256:00", "https://quay.io/a", "a b", "quay.io/", "../x", strings.Repeat("a/", 500) + "a"} {
		if ref, err := ParseReference(text); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%.40q: got %v, %v, want it refused", text, ref, err)
		}
	}
}

// What a person types is mapped as if a client had asked for it.
func TestRegistryParseReference(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil, func(s *setup) { s.names = names(t) })
	for text, want := range map[string]string{
		"nginx": "docker.io/library/nginx:latest",
		"localhost:5929/docker-hub/library/nginx":   "docker.io/library/nginx:latest",
		ecrRegistry + "/docker-hub/library/nginx:1": "docker.io/library/nginx:1",
	} {
		if ref, err := b.ParseReference(text); err != nil || ref.String() != want {
			t.Errorf("%s: got %v, %v, want %s", text, ref, err, want)
		}
	}
	for _, text := range []string{"localhost:5929/nginx", "!"} {
		if ref, err := b.ParseReference(text); err == nil {
			t.Errorf("%s: got %v, want an error", text, ref)
		}
	}
}

func TestWithObject(t *testing.T) {
	t.Parallel()
	repo := Repository{Host: "quay.io", Path: "a"}
	sha512 := digest.SHA512.FromString("x").String()
	for object, byDigest := range map[string]bool{
		"latest": false, "v1.0_a-b": false, "_": false, strings.Repeat("t", 128): false, emptyDigest.String(): true, sha512: true,
	} {
		if ref, err := repo.WithObject(object); err != nil || (ref.Digest != "") != byDigest || (ref.Tag != "") == byDigest {
			t.Errorf("%.40s: got %+v, %v", object, ref, err)
		}
	}
	for _, object := range []string{
		"", ".", "-a", "a/b", "..", "a:b", "a\x00", "ä", strings.Repeat("t", 129),
		"sha256:", "sha256:00", "sha256:../../etc", "md5:d41d8cd98f00b204e9800998ecf8427e", "..:00",
		strings.ToUpper(emptyDigest.String()), "sha256:" + strings.ToUpper(emptyDigest.Encoded()), emptyDigest.String() + "0",
	} {
		if ref, err := repo.WithObject(object); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%.40q: got %v, %v, want it refused", object, ref, err)
		}
	}
}

func TestParseName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"docker.io/library/nginx:1", "docker.io/nginx:1", "quay.io/a@" + emptyDigest.String(),
		"quay.io/a:tag@" + emptyDigest.String(), "[::1]:5000/a:b", "localhost:5000/a",
	} {
		if ref, err := parseName(name); err != nil || ref.String() != name {
			t.Errorf("%s: got %v, %v, want it as it is", name, ref, err)
		}
	}
	for _, name := range []string{"", "nginx", "docker.io", "index.docker.io/a:1", "quay.io/a:", "quay.io/a@", "quay.io/a:b:c", "QUAY.io/a:1"} {
		if ref, err := parseName(name); err == nil {
			t.Errorf("%q: got %v, want it refused", name, ref)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"nginx", "quay.io/a:b@" + emptyDigest.String(), "localhost:1/a", "a.b/c:d", "[::1]:5/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseReference(s)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("%q: error of no kind: %v", s, err)
			}
			return
		}
		for _, parse := range []func(string) (Reference, error){ParseReference, parseName} {
			if again, err := parse(ref.String()); err != nil || again != ref {
				t.Fatalf("%q: %v reads back as %v, %v", s, ref, again, err)
			}
		}
	})
}
