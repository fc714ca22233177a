package mirror

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
)

// private makes docker.io private.
func private(s *setup) {
	s.policies = remotes.NewPolicies(remotes.Policy{Private: remotes.PrivateVerify})
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// newPrivateBench is a bench whose upstream lets kim in, and asks everybody.
func newPrivateBench(t *testing.T, change ...func(*setup)) (*bench, remotestest.Image) {
	t.Helper()
	b := newBench(t, append([]func(*setup){private}, change...)...)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{300_000}})
	b.up.PutImage("library/app", "1", img)
	b.up.Fault(remotestest.Repo("library/app"), remotestest.RequireBasic(func(user, password string) bool {
		return user == "kim" && password == "hunter2"
	}))
	return b, img
}

// Everything of a private repository is for those whom upstream accepts, also
// when it is stored: manifests, blobs, parts of them, lists, by GET and HEAD.
func TestPrivateNeedsSecret(t *testing.T) {
	t.Parallel()
	b, img := newPrivateBench(t)
	layer := img.Blobs[0]
	right := []string{"Authorization", basic("kim", "hunter2")}
	paths := []string{
		manifestPath("1"), manifestPath(img.Root.Digest.String()), blobPath(layer.Descriptor.Digest),
		"/v2/library/app/tags/list" + hub, "/v2/library/app/referrers/" + img.Root.Digest.String() + hub,
	}
	for _, when := range []string{"cold", "warm"} {
		for _, path := range paths {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				a := b.ask(method, path, "Range", "bytes=0-9")
				if a.status != http.StatusUnauthorized || a.header.Get("WWW-Authenticate") != `Basic realm="larder"` || a.header.Get("Docker-Content-Digest") != "" {
					t.Errorf("%s: %s %s without a secret: %d, %v, want 401 with a challenge", when, method, path, a.status, a.header)
				}
				a = b.ask(method, path, "Authorization", basic("kim", "wrong"))
				if a.status != http.StatusForbidden || a.header.Get("WWW-Authenticate") != "" || method == http.MethodGet && a.entry().Code != "DENIED" {
					t.Errorf("%s: %s %s with a wrong secret: %d %+v, want 403", when, method, path, a.status, a.entry())
				}
			}
		}
		for _, path := range paths {
			b.get(path, right...)
		}
		b.settle(layer.Descriptor.Digest)
	}
	a := b.get(blobPath(layer.Descriptor.Digest), append(right, "Range", "bytes=5-9")...)
	if a.status != http.StatusPartialContent || !bytes.Equal(a.body, layer.Data[5:10]) {
		t.Errorf("part: %d with %d bytes", a.status, len(a.body))
	}
	if a := b.get("/v2/"); a.header.Get("WWW-Authenticate") != "" {
		t.Errorf("ping: %v, want it open", a.header)
	}
	if strings.Contains(b.log.String(), "hunter2") || strings.Contains(b.log.String(), basic("kim", "hunter2")[6:]) {
		t.Errorf("the log has the secret:\n%s", b.log)
	}
}

// What a private repository takes for a pull secret, and what not.
func TestAuthorizationHeader(t *testing.T) {
	t.Parallel()
	b, _ := newPrivateBench(t)
	encode := base64.StdEncoding.EncodeToString
	for value, want := range map[string]int{
		basic("kim", "hunter2"):                200,
		"basic " + basic("kim", "hunter2")[6:]: 200,
		"Bearer abc":                           401,
		"Negotiate abc":                        401,
		"hunter2":                              401,
		"":                                     401,
		"Basic":                                400,
		"Basic !!!":                            400,
		"Basic " + encode([]byte("no colon")):  400,
		basic("", "hunter2"):                   400,
		basic("kim", ""):                       400,
		basic("kim\n", "hunter2"):              400,
		basic("kim", "hunter2\x00"):            400,
		basic("kim", "hunter2:"):               403,
		basic("kim", strings.Repeat("x", 10_000)):           403,
		basic("kim", strings.Repeat("x", maxCredential-3)):  403,
		basic("kim", strings.Repeat("x", maxCredential-2)):  400,
		basic(strings.Repeat("x", maxCredential), "y"):      400,
		basic("kim", "pä\u00dfword"):                        403,
		"Basic " + encode([]byte("kim:hunter2")) + " extra": 400,
	} {
		a := b.ask(http.MethodGet, manifestPath("1"), "Authorization", value)
		if a.status != want {
			t.Errorf("%.60q: %d %+v, want %d", value, a.status, a.entry(), want)
		}
		if len(value) > 20 && bytes.Contains(a.body, []byte(value[6:])) {
			t.Errorf("%.60q: the answer repeats it", value)
		}
	}
	two := b.ask(http.MethodGet, manifestPath("1"), "Authorization", basic("kim", "hunter2"), "Authorization", basic("kim", "hunter2"))
	if two.status != http.StatusBadRequest {
		t.Errorf("two headers: %d, want 400", two.status)
	}
	if a := b.ask(http.MethodGet, manifestPath("sha256:x"), "Authorization", basic("kim", "hunter2")); a.status != 400 || a.entry().Code != "DIGEST_INVALID" {
		t.Errorf("malformed digest: %d %+v, want 400", a.status, a.entry())
	}
	// The node secret comes first.
	c, _ := newPrivateBench(t, func(s *setup) { s.secret = "node" })
	if a := c.ask(http.MethodGet, manifestPath("1"), "Authorization", basic("kim", "hunter2")); a.status != http.StatusForbidden || len(c.up.Requests()) != 0 {
		t.Errorf("without the node secret: %d, and upstream saw %d requests", a.status, len(c.up.Requests()))
	}
	c.get(manifestPath("1"), SecretHeader, "node", "Authorization", basic("kim", "hunter2"))
}

// Where nothing is private, Authorization is not looked at, and goes nowhere.
func TestPublicIgnoresAuthorization(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.up.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 1}))
	for _, value := range []string{"Basic !!!", basic("kim", "hunter2"), "Bearer abc"} {
		b.get(manifestPath("1"), "Authorization", value)
	}
	for _, r := range b.up.Requests() {
		if got := r.Header.Get("Authorization"); got != "" {
			t.Errorf("upstream was sent %q", got)
		}
	}
}

// An upstream that does not answer is no refusal: 503, and in time. Never 429.
func TestPrivateUpstreamDown(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]remotestest.FaultFunc{
		"hang": remotestest.Hang(), "429": remotestest.TooManyRequests(0), "500": remotestest.Error(500, "UNKNOWN", "down"),
	} {
		b, _ := newPrivateBench(t, func(s *setup) { s.wait = 300_000_000 })
		b.up.Fault(remotestest.Manifests(), f)
		a := b.ask(http.MethodGet, manifestPath("1"), "Authorization", basic("kim", "hunter2"))
		if a.status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %+v, want 503", name, a.status, a.entry())
		}
	}
}

// Of what a rule denies no upstream is asked, and no secret is shown to it.
func TestDeniedIsNotVerified(t *testing.T) {
	t.Parallel()
	b, _ := newPrivateBench(t, func(s *setup) {
		policies, err := remotes.NewPolicies(remotes.Policy{}).WithRules(remotes.Rules{}, []remotes.Template{
			{Prefix: remotes.Root, Settings: remotes.Settings{Private: remotes.PrivateVerify, Deny: []string{"docker.io/library/*"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.policies = policies
	})
	for _, header := range [][]string{nil, {"Authorization", basic("kim", "hunter2")}, {"Authorization", basic("kim", "wrong")}} {
		a := b.ask(http.MethodGet, manifestPath("1"), header...)
		if e := a.entry(); a.status != http.StatusForbidden || e.Code != "DENIED" || !strings.HasPrefix(e.Message, "larder is configured not to serve this: ") {
			t.Errorf("%v: %d %+v, want it denied by larder", header, a.status, e)
		}
	}
	if n := len(b.up.Requests()); n != 0 {
		t.Errorf("upstream saw %d requests", n)
	}
}
