package remotes

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestParseHost(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"docker.io":                       "docker.io",
		"index.docker.io":                 "docker.io",
		"registry-1.docker.io":            "docker.io",
		"Registry-1.Docker.IO":            "docker.io",
		"quay.io":                         "quay.io",
		"localhost":                       "localhost",
		"localhost:5929":                  "localhost:5929",
		"registry:5000":                   "registry:5000",
		"127.0.0.1:5000":                  "127.0.0.1:5000",
		"[::1]:5000":                      "[::1]:5000",
		"docker.io:443":                   "docker.io",
		"Index.docker.io:0443":            "docker.io",
		"quay.io:443":                     "quay.io",
		"quay.io:00443":                   "quay.io",
		"quay.io:05000":                   "quay.io:5000",
		"localhost:443":                   "localhost",
		"registry:443":                    "registry:443", // "registry" would be a path at Docker Hub
		"registry:0443":                   "registry:443",
		"[::1]:443":                       "[::1]",
		"[::1]":                           "[::1]",
		strings.Repeat("a", 249) + ".com": strings.Repeat("a", 249) + ".com",
	} {
		if got, err := ParseHost(text); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", ".", "-a.io", "registry", "docker", "a b.io", "docker.io/library", "https://docker.io", "docker.io:",
		"docker.io:port", "docker.io:0", "docker.io:65536", "d\x00cker.io", "..", "docker..io", "docker.io?x", "docker.io#x", "%64ocker.io", "ドッカー.io",
		strings.Repeat("a", 10_000) + ".io", "[::1", "user:hunter2@docker.io", "hunter2@docker.io", "docker.io@sha256:abc",
	} {
		_, err := ParseHost(text)
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%.60q: got %v, want it refused", text, err)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || len(err.Error()) > 500) {
			t.Errorf("%.60q: the error repeats a secret, or is endless: %.600v", text, err)
		}
	}
}
