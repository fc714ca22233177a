package upstream

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// realms says which token services may see a credential for an upstream.
// Anybody who can answer in a registry's place names the realm in a challenge.
type realms struct {
	registry Endpoint
	named    []string // hosts that the configuration adds
}

// newRealms finds the hosts that Options.Realms adds for an upstream.
func newRealms(registry Endpoint, all map[string][]string) realms {
	r := realms{registry: registry}
	for host, named := range all {
		if hostPort(registry.Scheme, host) == registry.hostPort() {
			r.named = append(r.named, named...)
		}
	}
	return r
}

// trusts reports whether a token service may see a credential: it is the
// registry itself, or in the same registrable domain, or named; and it is
// reached by https, unless the configuration has the registry itself spoken to
// without.
func (r realms) trusts(realm *url.URL) bool {
	if realm.Scheme != "https" && r.registry.Scheme != "http" {
		return false
	}
	hp := hostPort(realm.Scheme, realm.Host)
	if hp == r.registry.hostPort() {
		return true
	}
	for _, named := range r.named {
		if hp == hostPort(realm.Scheme, named) {
			return true
		}
	}
	own := registrableDomain(r.registry.Host)
	return own != "" && own == registrableDomain(realm.Host)
}

// registrableDomain is the part of a host's name that somebody registered, ""
// if there is none: for an address, a name of one label, or a public suffix.
func registrableDomain(host string) string {
	name := (&url.URL{Host: strings.ToLower(host)}).Hostname()
	for i := range len(name) {
		if name[i] >= 0x80 {
			return "" // net/http would send to what this maps to
		}
	}
	domain, err := publicsuffix.EffectiveTLDPlusOne(name)
	if err != nil {
		return ""
	}
	return domain
}

// sameOrigin compares scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && hostPort(a.Scheme, a.Host) == hostPort(b.Scheme, b.Host)
}

// keepOrigin is http.Client.CheckRedirect of a request whose header or body
// holds a credential: net/http would send the body of a POST again, wherever
// a 307 or 308 points.
func keepOrigin(req *http.Request, via []*http.Request) error {
	if first := via[0].URL; !sameOrigin(req.URL, first) {
		return &redirectError{from: first.Host, to: req.URL.Scheme + "://" + req.URL.Host}
	}
	return checkRedirect(req, via)
}

// redirectError is a refusal of our own to follow a token service.
type redirectError struct{ from, to string }

func (e *redirectError) Error() string {
	return fmt.Sprintf("%s redirects to %s, and a credential is not sent on", e.from, e.to)
}
