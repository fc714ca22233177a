package mirror

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// raw sends a request line as it is, which an HTTP client would not.
func (b *bench) raw(target string) answer {
	b.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(soon(b.t), "tcp4", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", target, b.addr); err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		b.t.Fatalf("%.60s: %v", target, err)
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength}
	body := make([]byte, 64<<10)
	n, _ := bufio.NewReader(resp.Body).Read(body)
	a.body = body[:n]
	return a
}

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// What is malformed is refused at once, with the code that names it, and
// upstream hears nothing of it.
func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	long := strings.Repeat("a", 10_000)
	for target, want := range map[string]string{
		// Paths that are no endpoint.
		"/":                                 "404 UNSUPPORTED",
		"/v1/library/app/manifests/1":       "404 UNSUPPORTED",
		"/v2/_catalog":                      "404 UNSUPPORTED",
		"/v2/manifests/1?ns=docker.io":      "404 UNSUPPORTED",
		"/v2/x/tags/other?ns=docker.io":     "404 UNSUPPORTED",
		"/v2/x/blobs/uploads/?ns=docker.io": "404 UNSUPPORTED",
		"//v2/x/manifests/1?ns=docker.io":   "404 UNSUPPORTED",
		"/v2/x?ns=docker.io":                "404 UNSUPPORTED",
		"*":                                 "404 UNSUPPORTED",
		// Names.
		"/v2/../manifests/1?ns=docker.io":              "400 NAME_INVALID",
		"/v2/a/../b/manifests/1?ns=docker.io":          "400 NAME_INVALID",
		"/v2/%2e%2e/manifests/1?ns=docker.io":          "400 NAME_INVALID",
		"/v2/%2e%2e/manifests/1":                       "400 NAME_INVALID",
		"/v2/a%2f..%2fb/manifests/1?ns=docker.io":      "400 NAME_INVALID",
		"/v2/a//b/manifests/1?ns=docker.io":            "400 NAME_INVALID",
		"/v2//a/manifests/1?ns=docker.io":              "400 NAME_INVALID",
		"/v2/a%00b/manifests/1?ns=docker.io":           "400 NAME_INVALID",
		"/v2/A/manifests/1?ns=docker.io":               "400 NAME_INVALID",
		"/v2/%C3%A4/manifests/1?ns=docker.io":          "400 NAME_INVALID",
		"/v2/" + long + "/manifests/1?ns=docker.io":    "400 NAME_INVALID",
		"/v2/a%0d%0aX-Evil:1/manifests/1?ns=docker.io": "400 NAME_INVALID",
		// ns.
		"/v2/a/manifests/1?ns=docker.io&ns=quay.io":   "400 NAME_INVALID",
		"/v2/a/manifests/1?ns=docker.io&ns=docker.io": "400 NAME_INVALID",
		"/v2/a/manifests/1?ns=" + long:                "400 NAME_INVALID",
		"/v2/a/manifests/1?ns=a%00b":                  "400 NAME_INVALID",
		"/v2/a/manifests/1?ns=http://docker.io":       "400 NAME_INVALID",
		"/v2/a/manifests/1?ns=docker.io/library":      "400 NAME_INVALID",
		"/v2/a/manifests/1?ns=me:hunter2@docker.io":   "400 NAME_INVALID",
		"/v2/a/manifests/1?ns=docker":                 "400 NAME_INVALID",
		"/v2/a/manifests/1?ns=..":                     "400 NAME_INVALID",
		"/v2/a/manifests/1?ns=docker.io:99999999":     "400 NAME_INVALID",
		"/v2/a/manifests/1?ns=%zz":                    "400 UNSUPPORTED",
		"/v2/a/manifests/1?ns=docker.io;x":            "400 UNSUPPORTED",
		// Tags and digests.
		"/v2/a/manifests/?ns=docker.io":                                     "400 MANIFEST_INVALID",
		"/v2/a/manifests/-x?ns=docker.io":                                   "400 MANIFEST_INVALID",
		"/v2/a/manifests/%2e%2e?ns=docker.io":                               "400 MANIFEST_INVALID",
		"/v2/a/manifests/" + strings.Repeat("t", 129) + "?ns=docker.io":     "400 MANIFEST_INVALID",
		"/v2/a/manifests/sha256:00?ns=docker.io":                            "400 DIGEST_INVALID",
		"/v2/a/manifests/md5:d41d8cd98f00b204e9800998ecf8427e?ns=docker.io": "400 DIGEST_INVALID",
		"/v2/a/blobs/latest?ns=docker.io":                                   "400 DIGEST_INVALID",
		"/v2/a/blobs/sha256:..%2f..%2fetc?ns=docker.io":                     "404 UNSUPPORTED",
		"/v2/a/blobs/sha256:" + strings.Repeat("E", 64) + "?ns=docker.io":   "400 DIGEST_INVALID",
		"/v2/a/blobs/" + someDigest + "0?ns=docker.io":                      "400 DIGEST_INVALID",
		"/v2/a/referrers/x?ns=docker.io":                                    "400 DIGEST_INVALID",
		// Pages.
		"/v2/a/tags/list?ns=docker.io&n=-1":                  "400 PAGINATION_NUMBER_INVALID",
		"/v2/a/tags/list?ns=docker.io&n=1e18":                "400 PAGINATION_NUMBER_INVALID",
		"/v2/a/tags/list?ns=docker.io&n=9223372036854775808": "400 PAGINATION_NUMBER_INVALID",
		"/v2/a/tags/list?ns=docker.io&n=x":                   "400 PAGINATION_NUMBER_INVALID",
		// A rule would be needed.
		"/v2/library/app/manifests/1": "404 NAME_UNKNOWN",
		"/v2/docker-hub/manifests/1":  "404 NAME_UNKNOWN",
	} {
		a := b.raw(target)
		if got := fmt.Sprint(a.status, " ", a.entry().Code); got != want {
			t.Errorf("%.80s: got %s, want %s (%.200s)", target, got, want, a.body)
		}
		if strings.Contains(string(a.body), "hunter2") || len(a.body) > 4<<10 || a.header.Get("X-Evil") != "" {
			t.Errorf("%.80s: answer repeats what it should not: %.300s", target, a.body)
		}
	}
	if n := len(b.up.Requests()); n != 0 {
		t.Errorf("upstream saw %d requests, want 0", n)
	}
	if strings.Contains(b.log.String(), "hunter2") {
		t.Error("the log has a password")
	}
}

// Names may hold the words of the API.
func TestNamesLikeEndpoints(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1})
	for _, name := range []string{"manifests/manifests", "blobs/manifests/tags", "a/tags/list", "v2/v2", "a/blobs/" + strings.Repeat("0", 64)} {
		b.up.PutImage(name, "manifests", img)
		a := b.get("/v2/" + name + "/manifests/manifests" + hub)
		if digest.FromBytes(a.body) != img.Root.Digest {
			t.Errorf("%s: got %d bytes, want the manifest", name, len(a.body))
		}
		if a := b.get("/v2/" + name + "/tags/list" + hub); !strings.Contains(string(a.body), name) {
			t.Errorf("%s: tags are %s", name, a.body)
		}
	}
	// Escapes that mean nothing special mean nothing special.
	b.up.PutImage("library/app", "1", img)
	b.get("/v2/library%2Fapp/manifests/" + strings.Replace(img.Root.Digest.String(), ":", "%3A", 1) + hub)
}

func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{
		"/v2/", "/v2/library/app/manifests/latest?ns=docker.io", "/v2/a/blobs/" + someDigest, "/v2/a/tags/list?n=10&last=x",
		"/v2/a/referrers/" + someDigest + "?artifactType=x", "/v2/manifests/manifests/manifests", "/v2/%2e%2e//x", "/v2/a/tags/list?n=1e9",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.ParseRequestURI(s)
		if err != nil {
			return
		}
		req, err := parseRequest(u)
		if err != nil {
			r := refuse(req, err)
			if r.status != http.StatusBadRequest && r.status != http.StatusNotFound {
				t.Fatalf("%q: refused with %d: %v", s, r.status, err)
			}
			return
		}
		switch req.kind {
		case kindPing:
		case kindManifest, kindBlob, kindReferrers, kindTags:
			if strings.Contains(req.object, "/") || !strings.HasPrefix(u.Path, "/v2/"+req.name+"/") || !strings.HasSuffix(u.Path, "/"+req.object) {
				t.Fatalf("%q: taken apart as %+v", s, req)
			}
		default:
			t.Fatalf("%q: of no kind: %+v", s, req)
		}
		if req.n < -1 || req.n > maxPage {
			t.Fatalf("%q: n is %d", s, req.n)
		}
	})
}
