package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// authority makes certificates for loopback.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // of its own certificate
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	cert, key := a.issue(name, true)
	a.cert, a.key = cert.Leaf, key
	a.file = a.write("ca.pem", &pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	return a
}

// issue makes a certificate, signed by itself if there is no authority yet.
func (a *authority) issue(name string, isCA bool) (tls.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, key
}

func (a *authority) write(name string, blocks ...*pem.Block) string {
	a.t.Helper()
	var data []byte
	for _, b := range blocks {
		data = append(data, pem.EncodeToMemory(b)...)
	}
	file := filepath.Join(a.dir, name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// client writes a client certificate and its key.
func (a *authority) client() (certFile, keyFile string) {
	a.t.Helper()
	cert, key := a.issue("client", false)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write("client.pem", &pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		a.write("client.key", &pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// serve answers in TLS by a certificate of the authority, asks for one of the
// client's, and counts those it is shown.
func (a *authority) serve(h http.HandlerFunc) (url string, shown *atomic.Int64) {
	a.t.Helper()
	shown = new(atomic.Int64)
	cert, _ := a.issue("server", false)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown.Add(int64(len(r.TLS.PeerCertificates)))
		h(w, r)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	s.EnableHTTP2 = true
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return s.URL, shown
}

func answers(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

// TestHostCertificates gives one of two hosts a CA and a client certificate.
// The other one, on another port of the same address, must not profit, be it
// that the first redirects there.
func TestHostCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	var other string
	first, shown := ca.serve(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, other+"/layer", http.StatusTemporaryRedirect)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})
	var otherShown *atomic.Int64
	other, otherShown = ca.serve(answers(http.StatusNotFound))
	certFile, keyFile := ca.client()
	hosts := map[string]Host{strings.TrimPrefix(first, "https://"): {CAFile: ca.file, ClientCertFile: certFile, ClientKeyFile: keyFile}}
	p := newPool(t, Options{Named: endpoints(t, first, other), Hosts: hosts})
	failed(t, resolve(soon(t), p.Client(endpoint(t, first))), errdefs.ErrNotFound)
	if n := shown.Load(); n == 0 {
		t.Error("the host was shown no certificate")
	}
	blob := layer(image(1))
	_, _, err := readBlob(t, p.Client(endpoint(t, first)), "team/app", blob, 0)
	if e := failure(t, err, errdefs.ErrUnavailable); !strings.Contains(e.Error(), "certificate signed by unknown authority") {
		t.Errorf("the CA holds behind a redirect: %v", e)
	}
	if e := failure(t, resolve(soon(t), p.Client(endpoint(t, other))), errdefs.ErrUnavailable); !strings.Contains(e.Error(), "unknown authority") {
		t.Errorf("the CA holds for another port: %v", e)
	}
	// With the CA known to all, the certificate still is for one.
	p.transport.TLSClientConfig.RootCAs = x509.NewCertPool()
	p.transport.TLSClientConfig.RootCAs.AddCert(ca.cert)
	_, _, err = readBlob(t, p.Client(endpoint(t, first)), "team/app", blob, 0)
	failed(t, err, errdefs.ErrNotFound)
	if n := otherShown.Load(); n != 0 {
		t.Errorf("another host was shown %d certificates", n)
	}
}

// TestHostCAIsAdded keeps what the system trusts.
func TestHostCAIsAdded(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	cfg, err := Host{CAFile: ca.file}.tlsConfig()
	if err != nil {
		t.Fatal(err)
	}
	system, err := x509.SystemCertPool()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.RootCAs.Equal(system) {
		t.Error("nothing was added")
	}
	system.AddCert(ca.cert)
	if !cfg.RootCAs.Equal(system) {
		t.Error("the system's certificates are lost")
	}
}

// TestHostFiles reads what is wrong with files. No error may hold a key.
func TestHostFiles(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	certFile, keyFile := ca.client()
	_, otherKey := newAuthority(t, "other").client()
	none := filepath.Join(ca.dir, "none.pem")
	text := ca.write("text.pem")
	garbage := ca.write("garbage.pem", &pem.Block{Type: "CERTIFICATE", Bytes: []byte("garbage")})
	for name, tc := range map[string]struct {
		host Host
		want []string
	}{
		"CA is missing":       {Host{CAFile: none}, []string{none, "no such file"}},
		"CA is empty":         {Host{CAFile: text}, []string{text, "holds no PEM certificate"}},
		"CA is a key":         {Host{CAFile: keyFile}, []string{keyFile, `holds a "PRIVATE KEY"`}},
		"CA is garbage":       {Host{CAFile: garbage}, []string{garbage, "certificate 1"}},
		"no key":              {Host{ClientCertFile: certFile}, []string{certFile, "want both"}},
		"no certificate":      {Host{ClientKeyFile: keyFile}, []string{keyFile, "want both"}},
		"certificate missing": {Host{ClientCertFile: none, ClientKeyFile: keyFile}, []string{none, "no such file"}},
		"key missing":         {Host{ClientCertFile: certFile, ClientKeyFile: none}, []string{none, "no such file"}},
		"another's key":       {Host{ClientCertFile: certFile, ClientKeyFile: otherKey}, []string{certFile, otherKey, "does not match"}},
		"exchanged":           {Host{ClientCertFile: keyFile, ClientKeyFile: certFile}, []string{certFile, keyFile}},
	} {
		p, err := NewPool(Options{Hosts: map[string]Host{"r.example": tc.host}})
		if err == nil {
			p.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		for _, want := range append(tc.want, "upstream host r.example: ") {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v does not say %q", name, err, want)
			}
		}
	}
}

// TestHostCertificatesThroughProxy tunnels to a host with a CA of its own; a
// proxy that would be shown the client certificate is refused.
func TestHostCertificatesThroughProxy(t *testing.T) {
	reg, _ := withImage(t, remotestest.WithTLS())
	ca := newAuthority(t, "ca")
	file := ca.write("ca.pem", &pem.Block{Type: "CERTIFICATE", Bytes: certificateOf(t, reg)})
	proxy, asked := connectProxy(t, reg.Host())
	proxyEnvironment(t, proxy)
	hosts := map[string]Host{"example.com": {CAFile: file}} // the certificate's other name
	p := newPool(t, Options{Hosts: hosts})
	if err := resolve(soon(t), p.Client(endpoint(t, "https://example.com"))); err != nil {
		t.Errorf("through the proxy: %v", err)
	}
	p.Close()
	if n := len(asked()); n != 1 {
		t.Errorf("the proxy was asked %d times, want 1", n)
	}
	proxyEnvironment(t, "https://proxy.example")
	if _, err := NewPool(Options{Hosts: hosts}); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "NO_PROXY") {
		t.Errorf("got %v, want it refused", err)
	}
	t.Setenv("NO_PROXY", "example.com")
	newPool(t, Options{Hosts: hosts})
}

// certificateOf is what a registry shows.
func certificateOf(t *testing.T, reg *remotestest.Registry) []byte {
	t.Helper()
	conn, err := tls.Dial("tcp", reg.Host(), reg.TLSClientConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Raw
}
