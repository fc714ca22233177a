package hosts

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/google/go-cmp/cmp"
)

// hostsFor returns the endpoints that containerd tries for host, in its own reading of dir.
func hostsFor(t *testing.T, dir, host string) []docker.RegistryHost {
	t.Helper()
	configure := dockerconfig.ConfigureHosts(t.Context(), dockerconfig.HostOptions{HostDir: dockerconfig.HostDirFromRoot(dir)})
	all, err := configure(host)
	if err != nil {
		t.Fatalf("%s: %v", host, err)
	}
	return all
}

// endpoints are the URLs of hosts.
func endpoints(hosts []docker.RegistryHost) []string {
	var all []string
	for _, h := range hosts {
		all = append(all, h.Scheme+"://"+h.Host+h.Path)
	}
	return all
}

func TestContainerdTriesMirrorThenRegistry(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Registries = append(DefaultRegistries(), "registry.example:5000", "[fd00::1]:5000")
	if _, err := Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	plain := t.TempDir()
	for _, host := range append(o.Registries, "localhost:5000", "other.example", "123456789012.dkr.ecr.eu-central-1.amazonaws.com") {
		got := hostsFor(t, o.CertsDir, host)
		// Behind the mirror containerd must do what it does without any hosts.toml.
		want := append([]string{testMirror + "/v2"}, endpoints(hostsFor(t, plain, host))...)
		if diff := cmp.Diff(want, endpoints(got)); diff != "" {
			t.Errorf("%s: endpoints (-want +got):\n%s", host, diff)
			continue
		}
		if want := docker.HostCapabilityPull | docker.HostCapabilityResolve; got[0].Capabilities != want {
			t.Errorf("%s: mirror has capabilities %b, want %b", host, got[0].Capabilities, want)
		}
		if !got[1].Capabilities.Has(docker.HostCapabilityPush) {
			t.Errorf("%s: the registry itself lost its push capability", host)
		}
		if diff := cmp.Diff(http.Header{"X-Larder-Secret": {"0123abcd"}}, got[0].Header); diff != "" {
			t.Errorf("%s: mirror header (-want +got):\n%s", host, diff)
		}
		if len(got[1].Header) != 0 {
			t.Errorf("%s: the secret would be sent to the registry: %v", host, got[1].Header)
		}
	}
}

func TestContainerdSendsNoHeaderWithoutSecret(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Secret, o.MirrorURL = "", "https://[::1]:443/"
	if _, err := Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	got := hostsFor(t, o.CertsDir, "docker.io")
	if want := "https://[::1]:443/v2"; len(got) != 2 || endpoints(got)[0] != want || len(got[0].Header) != 0 {
		t.Errorf("got %v with header %v, want %s first and no header", endpoints(got), got[0].Header, want)
	}
}

// TestContainerdKeepsCertificates: without hosts.toml containerd uses the folder's *.crt and *.cert files, and
// with one it must go on to do so.
func TestContainerdKeepsCertificates(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	der, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})

	o := testOptions(t.TempDir())
	o.Registries = []string{"registry.example:5000", "registry.example"}
	// The folder's name with a colon is containerd's second choice, and a new one must not hide it.
	for _, dir := range []string{"registry.example:5000", "registry.example"} {
		put(t, o.CertsDir, dir+"/ca.crt", string(cert), 0o644)
		put(t, o.CertsDir, dir+"/client.cert", string(cert), 0o644)
		put(t, o.CertsDir, dir+"/client.key", string(key), 0o600)
		put(t, o.CertsDir, dir+"/both in one.cert", string(cert)+string(key), 0o600)
	}
	if _, err := Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for _, host := range o.Registries {
		got := hostsFor(t, o.CertsDir, host)
		if diff := cmp.Diff([]string{testMirror + "/v2", "https://" + host + "/v2"}, endpoints(got)); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", host, diff)
		}
		tls := got[1].Client.Transport.(*http.Transport).TLSClientConfig
		if _, err := server.Certificate().Verify(x509.VerifyOptions{Roots: tls.RootCAs}); err != nil {
			t.Errorf("%s: ca.crt is not used: %v", host, err)
		}
		if len(tls.Certificates) != 2 {
			t.Errorf("%s: got %d client certificates, want 2", host, len(tls.Certificates))
		}
	}
	if changes, err := Apply(t.Context(), o); err != nil || changes[0].Action != ActionUnchanged {
		t.Errorf("second apply: got %v, error %v; want it unchanged", changes, err)
	}
	if changes, err := Undo(t.Context(), UndoOptions{CertsDir: o.CertsDir}); err != nil || len(changes) != 2 {
		t.Errorf("undo: got %v, error %v", changes, err)
	}
	if c := tree(t, o.CertsDir); c["/registry.example/ca.crt"] == "" || c[filepath.Join("/registry.example", hostsName)] != "" {
		t.Errorf("after undo: %v", c)
	}
}
