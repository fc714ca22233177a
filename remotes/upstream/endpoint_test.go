package upstream

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestParseEndpoint(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Endpoint{
		"registry-1.docker.io":              {Scheme: "https", Host: "registry-1.docker.io"},
		"https://GHCR.io":                   {Scheme: "https", Host: "ghcr.io"},
		"http://127.0.0.1:5000/":            {Scheme: "http", Host: "127.0.0.1:5000"},
		"HTTP://localhost":                  {Scheme: "http", Host: "localhost"},
		"example.com:5000/proxy/docker-hub": {Scheme: "https", Host: "example.com:5000", Prefix: "proxy/docker-hub"},
		"http://[::1]:5000":                 {Scheme: "http", Host: "[::1]:5000"},
	} {
		if got, err := ParseEndpoint(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "/", "://", "https://", "ftp://example.com", "https:example.com", "example.com/UPPER",
		"example.com/a//b", "example.com:", "example.com:port", "example.com:0", "example.com:65536", "exa mple.com", "example.com?",
		"example.com#", "example.com/a:tag", "example.com/a%2fB", "https://[fe80::1%25eth0]", "http://[::1", "exämple.com",
	} {
		if got, err := ParseEndpoint(text); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %+v, %v, want invalid argument", text, got, err)
		}
	}
}

// TestParseEndpointKeepsSecrets gives credentials in many wrong ways.
func TestParseEndpointKeepsSecrets(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"https://user:hunter2@example.com", "user:hunter2@example.com", "https://hunter2@example.com",
		"ftp://user:hunter2@example.com", "https:user:hunter2@example.com", "https:/user:hunter2@example.com",
		"https://user:%zzhunter2@example.com", "https://user:hunter2/x@example.com", "https://user:12/hunter2@example.com",
		"https://user:hunter2@exa mple.com", "https://example.com?token=hunter2", "https://example.com#hunter2",
		"https://user:hunter2@[::1", "https://example.com/%zz?token=hunter2", "hunter2@", "https://user:hunter2@example.com:port",
		"https://example.com/" + strings.Repeat("A", maxQuoted) + "hunter2",
	} {
		_, err := ParseEndpoint(text)
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v, want invalid argument", text, err)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: error repeats the secret: %v", text, err)
		}
	}
}

func TestHostPort(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ scheme, host, want string }{
		{"https", "Example.com", "example.com:443"},
		{"http", "example.com", "example.com:80"},
		{"https", "example.com:5000", "example.com:5000"},
		{"http", "[::1]", "[::1]:80"},
		{"https", "[::1]:5000", "[::1]:5000"},
		{"socks5", "proxy", "proxy:1080"},
		{"socks5h", "proxy", "proxy:1080"},
	} {
		if got := hostPort(tc.scheme, tc.host); got != tc.want {
			t.Errorf("%s %s: got %s, want %s", tc.scheme, tc.host, got, tc.want)
		}
	}
}

// FuzzParseEndpoint holds that an endpoint is read back as it was written.
func FuzzParseEndpoint(f *testing.F) {
	for _, s := range []string{
		"registry-1.docker.io", "http://127.0.0.1:5000/a/b", "https://[::1]:5000", "user:pw@host", "https://host?x", "a/b/c", "https://h:0", "%",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ep, err := ParseEndpoint(s)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("%q: %v, want invalid argument", s, err)
			}
			if len(err.Error()) > 2*4*maxQuoted+200 {
				t.Fatalf("%q: error of %d bytes", s, len(err.Error()))
			}
			return
		}
		if strings.ContainsAny(ep.String(), "@?# \n") || ep.Host == "" {
			t.Fatalf("%q: endpoint %+v", s, ep)
		}
		again, err := ParseEndpoint(ep.String())
		if err != nil || again != ep {
			t.Fatalf("%q: %+v reads back as %+v, %v", s, ep, again, err)
		}
	})
}
