package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"

	"github.com/containerd/errdefs"
)

// Host is how one upstream host is spoken to. A field that is zero says
// nothing.
type Host struct {
	// CAFile is a file of PEM certificates that this host's certificate may be
	// signed by, besides those that the system trusts. It holds for no other
	// host, be it one that this one redirects to.
	CAFile string
	// ClientCertFile and ClientKeyFile are PEM files with the certificate that
	// is shown to this host and port, and to no other, and with its key.
	ClientCertFile, ClientKeyFile string
	// MaxConnections, MaxSpeed and Parallel are as in Options.
	MaxConnections int
	Parallel       int
	MaxSpeed       int64
}

func (h Host) hasTLS() bool { return h.CAFile != "" || h.ClientCertFile != "" || h.ClientKeyFile != "" }

// tlsConfig reads the host's files. An error names the file.
func (h Host) tlsConfig() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if h.CAFile != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("the system's certificates: %w", err)
		}
		if err := addCertificates(roots, h.CAFile); err != nil {
			return nil, err
		}
		cfg.RootCAs = roots
	}
	if h.ClientCertFile == "" && h.ClientKeyFile == "" {
		return cfg, nil
	}
	if h.ClientCertFile == "" || h.ClientKeyFile == "" {
		return nil, fmt.Errorf("client certificate %q and key %q: want both: %w", h.ClientCertFile, h.ClientKeyFile, errdefs.ErrInvalidArgument)
	}
	cert, err := tls.LoadX509KeyPair(h.ClientCertFile, h.ClientKeyFile)
	if pe := (*os.PathError)(nil); errors.As(err, &pe) {
		return nil, err // names the one of the two
	}
	if err != nil {
		return nil, fmt.Errorf("client certificate %s with key %s: %w", h.ClientCertFile, h.ClientKeyFile, err)
	}
	cfg.Certificates = []tls.Certificate{cert}
	return cfg, nil
}

// addCertificates adds the certificates of a file. One that cannot be read is
// an error, and not left out: its host would be refused for no visible reason.
func addCertificates(roots *x509.CertPool, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	n := 0
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("%s holds a %q, want certificates only: %w", file, oneLine(block.Type), errdefs.ErrInvalidArgument)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("%s: certificate %d: %w: %w", file, n+1, err, errdefs.ErrInvalidArgument)
		}
		roots.AddCert(cert)
		n++
	}
	if n == 0 {
		return fmt.Errorf("%s holds no PEM certificate: %w", file, errdefs.ErrInvalidArgument)
	}
	return nil
}

// transports is the http.RoundTripper that gives each host its transport: its
// own one if it has certificates of its own, else the common one. No
// connection is shared between the two.
type transports struct {
	common *http.Transport
	own    map[string]*http.Transport // by host:port

	// apart are the same over HTTP/1.1 alone, where each request that runs has a
	// connection of its own: HTTP/2 has all of a host on one, and what bounds a
	// connection would bound all parts of a blob together. Nil in apart itself.
	apart *transports
}

// newTransports makes them. A proxy that is spoken to in TLS would be shown
// the client certificate, and could have one by the host's CA: it is refused
// for hosts with either.
func newTransports(hosts map[string]Host, common *http.Transport, build func(*tls.Config) *http.Transport) (*transports, error) {
	ts := &transports{common: common, own: map[string]*http.Transport{}}
	ts.apart = &transports{common: overHTTP1(common), own: map[string]*http.Transport{}}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		h := hosts[name]
		if !h.hasTLS() {
			continue
		}
		cfg, err := h.tlsConfig()
		if err != nil {
			errs = append(errs, fmt.Errorf("upstream host %s: %w", name, err))
			continue
		}
		proxy, err := common.Proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: name}})
		if err == nil && proxy != nil && proxy.Scheme == "https" {
			errs = append(errs, fmt.Errorf("upstream host %s: certificates of its own cannot go through a proxy that is an https:// URL; "+
				"add the host to NO_PROXY, or name the proxy by http://: %w", name, errdefs.ErrFailedPrecondition))
			continue
		}
		own := build(cfg)
		ts.own[hostPort("https", name)] = own
		ts.apart.own[hostPort("https", name)] = overHTTP1(own)
	}
	return ts, errors.Join(errs...)
}

// overHTTP1 is a transport like another one, with connections of its own.
func overHTTP1(like *http.Transport) *http.Transport {
	t := like.Clone()
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.ForceAttemptHTTP2, t.HTTP2 = false, nil
	// What the other one may have agreed on with servers is copied, too.
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	t.TLSClientConfig.NextProtos = []string{"http/1.1"}
	return t
}

// RoundTrip implements http.RoundTripper.
func (ts *transports) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "https" {
		if own, ok := ts.own[hostPort("https", req.URL.Host)]; ok {
			return own.RoundTrip(req)
		}
	}
	return ts.common.RoundTrip(req)
}

func (ts *transports) close() {
	ts.common.CloseIdleConnections()
	for _, own := range ts.own {
		own.CloseIdleConnections()
	}
	if ts.apart != nil {
		ts.apart.close()
	}
}
