package parts

import (
	"crypto/tls"
	"net/http"
	"testing"
)

func TestTLSRegistry(t *testing.T) {
	t.Parallel()
	for name, ipv6 := range map[string]bool{"ipv4": false, "ipv6": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bin, dir := workbench(t, "registry")
			seed(t, bin, dir, "team/app")
			ca, err := NewCA(dir, "servers")
			if err != nil {
				t.Fatal(err)
			}
			clients, err := NewCA(dir, "clients")
			if err != nil {
				t.Fatal(err)
			}
			r, err := StartTLSRegistry(t.Context(), bin, dir, TLSOptions{CA: ca, Clients: clients, IPv6: ipv6})
			if err != nil {
				t.Fatal(err)
			}
			ended(t, r.Close)
			for _, tc := range []struct {
				name string
				cfg  *tls.Config
				ok   bool
			}{
				{"no trust", &tls.Config{Certificates: clientCert(t, clients)}, false},
				{"no certificate", &tls.Config{RootCAs: ca.Pool()}, false},
				{"certificate of another authority", &tls.Config{RootCAs: ca.Pool(), Certificates: clientCert(t, ca)}, false},
				{"both", &tls.Config{RootCAs: ca.Pool(), Certificates: clientCert(t, clients)}, true},
			} {
				a, err := ask(t, &http.Transport{TLSClientConfig: tc.cfg}, http.MethodGet, r.URL+"/v2/team/app/manifests/1", nil)
				if ok := err == nil && a.status == 200; ok != tc.ok {
					t.Errorf("%s: got %d, %v, want it served: %t", tc.name, a.status, err, tc.ok)
				}
			}
		})
	}
}

func clientCert(t *testing.T, ca *CA) []tls.Certificate {
	t.Helper()
	pair, err := ca.Issue("larder")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	return []tls.Certificate{cert}
}
