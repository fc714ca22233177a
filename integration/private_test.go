package integration

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// privateBench is a node whose containerd asks larder first, for images of a
// registry that asks everybody for a password. Meters stand on all three wires.
type privateBench struct {
	*bench
	larder *parts.Larder
	node   *parts.Meter // between containerd and larder
	up     *parts.Meter // between larder and the registry
	direct *parts.Meter // between containerd and the registry: the host in image names
	c      *parts.Containerd
	images cri.ImageServiceClient
}

const (
	pullUser   = "kim"
	pullSecret = "hunter2-of-the-pod"
)

// newPrivateBench starts the parts; extra is more of larder's configuration. The
// image team/app:1 is in the registry.
func newPrivateBench(t *testing.T, localPull bool, extra string, img remotestest.Image) *privateBench {
	t.Helper()
	b := &privateBench{bench: newBench(t, "larder", "containerd", "ctr", "registry")}
	open, err := parts.StartRegistry(t.Context(), b.bin, b.dir)
	if err != nil {
		t.Fatal(err)
	}
	err = remotestest.Push(t.Context(), open.URL, "team/app", "1", img)
	if cerr := open.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	registry, err := parts.StartPrivateRegistry(t.Context(), b.bin, b.dir, map[string]string{pullUser: pullSecret})
	if err != nil {
		t.Fatal(err)
	}
	b.cleanup(registry.Close)
	b.up, b.direct = b.meter(registry.URL), b.meter(registry.URL)
	b.larder = b.bench.larder(fmt.Sprintf(`%s
[[routes]]
registry = %q
upstreams = [%q]
[[rules]]
ecr_repository_prefix = "private"
upstream_registry_url = %q
private = "verify"
`, extra, b.direct.Host(), b.up.URL(), b.direct.Host()))
	b.node = b.meter(b.larder.URL)
	certs := filepath.Join(b.dir, "certs.d")
	if err := b.larder.Setup(t.Context(), certs, b.node.URL()); err != nil {
		t.Fatal(err)
	}
	b.c = b.containerd(certs, localPull)
	b.images = imageService(t, b.c)
	return b
}

func (b *privateBench) meter(url string) *parts.Meter {
	b.t.Helper()
	m, err := parts.NewMeter(url)
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(m.Close)
	return m
}

// pull pulls the image as the kubelet does, into a containerd without it.
func (b *privateBench) pull(auth *cri.AuthConfig) error {
	b.t.Helper()
	if err := b.c.Forget(b.t.Context(), "k8s.io"); err != nil {
		b.t.Fatal(err)
	}
	_, err := b.images.PullImage(b.t.Context(), &cri.PullImageRequest{
		Image: &cri.ImageSpec{Image: b.direct.Host() + "/team/app:1"}, Auth: auth,
	})
	return err
}

// sinceThen returns what passes a meter from now on.
func sinceThen(m *parts.Meter) func() []parts.Exchange {
	before := len(m.Exchanges())
	return func() []parts.Exchange { return m.Exchanges()[before:] }
}

// podSecret is a pull secret as the kubelet hands it on.
func podSecret(server string) *cri.AuthConfig {
	return &cri.AuthConfig{Username: pullUser, Password: pullSecret, ServerAddress: server}
}

// pullPaths runs a test for both pull paths of containerd.
func pullPaths(t *testing.T, test func(t *testing.T, localPull bool)) {
	t.Helper()
	for name, localPull := range map[string]bool{"transfer": false, "local": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, localPull)
		})
	}
}

// When containerd shows the pod's secret to larder: the table of
// docs/private.md. The image is stored, so that what it is shown opens is seen.
func TestPrivateSecretReachesLarder(t *testing.T) {
	t.Parallel()
	pullPaths(t, func(t *testing.T, localPull bool) {
		// No memory to speak of: each secret is judged by itself.
		b := newPrivateBench(t, localPull, "[private]\nverified = \"1ns\"\nrefused = \"1ns\"\n", privateImage())
		if err := b.pull(podSecret("")); err != nil {
			t.Fatal(err)
		}
		encoded := base64.StdEncoding.EncodeToString([]byte(pullUser + ":" + pullSecret))
		const (
			larder = "larder" // serves it
			direct = "direct" // the registry does, to containerd itself
			none   = "none"
		)
		for name, c := range map[string]struct {
			auth  *cri.AuthConfig
			shown bool // to larder
			by    string
		}{
			"no AuthConfig":         {nil, false, none},
			"empty AuthConfig":      {&cri.AuthConfig{}, false, none},
			"username and password": {podSecret(""), true, larder},
			"auth":                  {&cri.AuthConfig{Auth: encoded}, true, larder},
			"wrong password":        {&cri.AuthConfig{Username: pullUser, Password: "wrong"}, true, none},
			"server: host":          {podSecret(b.direct.Host()), false, none}, // containerd cannot parse it
			"server: http://host":   {podSecret(b.direct.URL()), false, direct},
			"server: host/v1/":      {podSecret("https://" + b.direct.Host() + "/v1/"), false, direct},
			"server: larder's":      {podSecret(b.node.URL()), true, larder},
			"identity token":        {&cri.AuthConfig{IdentityToken: pullSecret}, false, none},
			"registry token":        {&cri.AuthConfig{RegistryToken: pullSecret}, false, none},
		} {
			node, up, registry := sinceThen(b.node), sinceThen(b.up), sinceThen(b.direct)
			err := b.pull(c.auth)
			shown, by := false, none
			for _, e := range node() {
				shown = shown || e.Authorization
				if e.Status == http.StatusOK {
					by = larder
				}
			}
			for _, e := range registry() {
				if e.Status == http.StatusOK {
					by = direct
				}
			}
			if shown != c.shown || by != c.by || (err == nil) != (c.by != none) {
				t.Errorf("%s: shown to larder %t, served by %s (%v), want %t and %s", name, shown, by, err, c.shown, c.by)
			}
			for _, e := range up() {
				if e.Method != http.MethodHead || !strings.Contains(e.Path, "/manifests/") {
					t.Errorf("%s: upstream saw %s %s, want nothing but HEAD of a manifest", name, e.Method, e.Path)
				}
			}
		}
	})
}

// The right secret is served from the store, for one HEAD upstream. A wrong one,
// and none, get nothing of it: containerd goes on to the registry, which
// refuses, too.
func TestPrivateImageInStore(t *testing.T) {
	t.Parallel()
	pullPaths(t, func(t *testing.T, localPull bool) {
		b := newPrivateBench(t, localPull, "", privateImage())
		if err := b.pull(podSecret("")); err != nil {
			t.Fatal(err)
		}
		// What it remembers of secrets ends with the process.
		if err := b.larder.Close(); err != nil {
			t.Fatal(err)
		}
		if err := b.larder.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		up, registry, node := sinceThen(b.up), sinceThen(b.direct), sinceThen(b.node)
		if err := b.pull(podSecret("")); err != nil {
			t.Fatal(err)
		}
		for _, e := range up() {
			if e.Method != http.MethodHead || !strings.HasSuffix(e.Path, "/manifests/1") {
				t.Errorf("right secret: upstream saw %s %s, want nothing but HEAD of the tag", e.Method, e.Path)
			}
		}
		// One, which is refused with a challenge first.
		if len(up()) != 2 || len(registry()) != 0 {
			t.Errorf("right secret: upstream saw %d requests of larder and %d of containerd, want 2 and none", len(up()), len(registry()))
		}
		for _, e := range node() {
			if e.Status == http.StatusOK && e.Cache != "hit" {
				t.Errorf("right secret: %s %s was a %s, want a hit", e.Method, e.Path, e.Cache)
			}
		}
		for name, auth := range map[string]*cri.AuthConfig{
			"none": nil, "wrong": {Username: pullUser, Password: "wrong"}, "another user": {Username: "eve", Password: pullSecret},
		} {
			node, registry := sinceThen(b.node), sinceThen(b.direct)
			if err := b.pull(auth); err == nil {
				t.Errorf("%s: pulled", name)
			}
			for _, e := range node() {
				if e.Status != http.StatusUnauthorized && e.Status != http.StatusForbidden {
					t.Errorf("%s: larder answered %s %s with %d", name, e.Method, e.Path, e.Status)
				}
			}
			if len(registry()) == 0 {
				t.Errorf("%s: containerd did not ask the registry itself", name)
			}
			for _, e := range registry() {
				if e.Status != http.StatusUnauthorized {
					t.Errorf("%s: the registry answered %s %s with %d", name, e.Method, e.Path, e.Status)
				}
			}
		}
		if strings.Contains(b.larder.Log(), pullSecret) {
			t.Error("larder's log has the pull secret")
		}
	})
}

// With the registry down the last yes holds for private.grace, counted from when
// it was said, and no longer; it is good for nobody else.
func TestPrivateGrace(t *testing.T) {
	t.Parallel()
	for _, local := range []bool{false, true} {
		t.Run(fmt.Sprintf("local %t", local), func(t *testing.T) {
			t.Parallel()
			holdsForGrace(t, local)
		})
	}
}

func holdsForGrace(t *testing.T, local bool) {
	t.Helper()
	const grace = 20 * time.Second
	b := newPrivateBench(t, local, fmt.Sprintf("%s[private]\nverified = \"1ns\"\nrefused = \"1ns\"\ngrace = %q\n", impatient, grace), privateImage())
	begin := time.Now()
	if err := b.pull(podSecret("")); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*parts.Meter{b.up, b.direct} {
		if err := m.Cut(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.pull(podSecret("")); err != nil {
		t.Errorf("inside the grace: %v", err)
	}
	if err := b.pull(&cri.AuthConfig{Username: pullUser, Password: "wrong"}); err == nil {
		t.Error("inside the grace of another secret: pulled")
	}
	url := b.larder.URL + "/v2/team/app/manifests/1?ns=" + b.direct.Host()
	authorization := "Basic " + base64.StdEncoding.EncodeToString([]byte(pullUser+":"+pullSecret))
	eventually(t, "the grace is over", func() bool {
		a := get(t, url, "Authorization", authorization)
		if a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
			t.Errorf("got %v, want 200 or 503", a)
		}
		return a.status == http.StatusServiceUnavailable
	})
	if held := time.Since(begin); held < grace {
		t.Errorf("the grace was over after %s, want %s", held, grace)
	}
	if err := b.pull(podSecret("")); err == nil {
		t.Error("after the grace: pulled")
	}
	for _, m := range []*parts.Meter{b.up, b.direct} {
		if err := m.Restore(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the registry is back", func() bool { return get(t, url, "Authorization", authorization).status == http.StatusOK })
}

func privateImage() remotestest.Image {
	return remotestest.Build(remotestest.ImageSpec{Seed: 120, Layers: []int64{2 << 20}})
}
