package parts

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// A client with a password gets an image from the look-alike under ECR's own
// host names; none of its requests leaves the machine.
func TestECRThroughProxy(t *testing.T) {
	t.Parallel()
	bin, dir := workbench(t, "registry")
	img := seed(t, bin, dir, "team/app")
	registry, err := StartRegistry(t.Context(), bin, dir)
	if err != nil {
		t.Fatal(err)
	}
	ended(t, registry.Close)
	ca, err := NewCA(dir, "aws")
	if err != nil {
		t.Fatal(err)
	}
	a, err := StartAWS()
	if err != nil {
		t.Fatal(err)
	}
	ended(t, a.Close)
	e, err := StartECR(ECROptions{CA: ca, Backend: registry.URL, AWS: a})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, e.Close)
	p, err := StartProxy(e.Routes())
	if err != nil {
		t.Fatal(err)
	}
	ended(t, p.Close)
	proxy, err := url.Parse(strings.TrimPrefix(p.Env()[0], "HTTPS_PROXY="))
	if err != nil {
		t.Fatal(err)
	}
	get := func(to string, auth func(*http.Request)) reply {
		t.Helper()
		r, err := ask(t, &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}, http.MethodGet, to, auth)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	a.mu.Lock()
	a.ecr.tokens["pw1"] = &ecrToken{principal: "x"}
	a.mu.Unlock()
	as := func(user, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, password) }
	}
	manifest := "https://" + ECRHost + "/v2/team/app/manifests/1"

	if r := get(manifest, nil); r.status != 401 || r.header.Get("Www-Authenticate") != `Basic realm="https://`+ECRHost+`/",service="ecr.amazonaws.com"` {
		t.Errorf("no password: got %d, %q", r.status, r.header.Get("Www-Authenticate"))
	}
	if r := get(manifest, as("AWS", "pw2")); r.status != 401 {
		t.Errorf("wrong password: got %d, want 401", r.status)
	}
	if r := get(manifest, as("AWS", "pw1")); r.status != 200 || r.body != string(img.Manifests[len(img.Manifests)-1].Data) || r.header.Get("Docker-Content-Digest") != "" {
		t.Errorf("password: got %d, digest header %q", r.status, r.header.Get("Docker-Content-Digest"))
	}
	layer := img.Blobs[len(img.Blobs)-1]
	blob := "https://" + ECRHost + "/v2/team/app/blobs/" + layer.Descriptor.Digest.String()
	r := get(blob, as("AWS", "pw1"))
	to := r.header.Get("Location")
	if r.status != 307 || !strings.HasPrefix(to, "https://"+ECRLayerHost+"/") {
		t.Fatalf("blob: got %d to %q, want 307 to the bucket", r.status, to)
	}
	if r := get(to, nil); r.status != 200 || r.body != string(layer.Data) {
		t.Errorf("bucket: got %d, %d bytes, want the layer", r.status, len(r.body))
	}
	if r := get(to, nil); r.status != 403 {
		t.Errorf("bucket, second use of a signature: got %d, want 403", r.status)
	}
	to = get(blob, as("AWS", "pw1")).header.Get("Location")
	if r := get(to, as("AWS", "pw1")); r.status != 400 {
		t.Errorf("bucket with credentials: got %d, want 400", r.status)
	}
	a.RevokeTokens()
	if r := get(manifest, as("AWS", "pw1")); r.status != 403 || !strings.Contains(r.body, "Your authorization token has expired. Reauthenticate and try again.") {
		t.Errorf("revoked password: got %d %s", r.status, r.body)
	}
	if got, want := e.Count(), (ECRCount{Challenged: 1, Refused: 1, Accepted: 3, Expired: 1, Layers: 1, Leaked: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}

	if _, err := ask(t, &http.Transport{Proxy: http.ProxyURL(proxy)}, http.MethodGet, "https://example.com/", nil); err == nil || !strings.Contains(err.Error(), "Bad Gateway") {
		t.Errorf("unknown host: got %v, want that the proxy refuses", err)
	}
	if got := p.Targets(); len(got) < 2 || got[len(got)-1] != "example.com:443" || got[0] != ECRHost+":443" {
		t.Errorf("the proxy was asked for %v", got)
	}
}
