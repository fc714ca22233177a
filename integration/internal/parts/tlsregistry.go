package parts

import (
	"context"
	"fmt"
	"net"
)

// TLSOptions say how a TLSRegistry listens.
type TLSOptions struct {
	// CA signs the certificate, which is for the address that is listened on.
	CA *CA
	// Clients, if any, must have signed the certificate that a client shows.
	Clients *CA
	// IPv6 listens on ::1 instead of 127.0.0.1.
	IPv6 bool
}

// StartTLSRegistry runs a registry behind TLS, whose files live under dir.
func StartTLSRegistry(ctx context.Context, bin Bin, dir string, opts TLSOptions) (*Registry, error) {
	ip := "127.0.0.1"
	if opts.IPv6 {
		ip = "::1"
	}
	pair, err := opts.CA.Issue(ip)
	if err != nil {
		return nil, err
	}
	clients := ""
	if opts.Clients != nil {
		clients = fmt.Sprintf(", clientcas: [%q]", opts.Clients.File)
	}
	section := fmt.Sprintf("http: {addr: %q, tls: {certificate: %q, key: %q%s}}\n",
		net.JoinHostPort(ip, "0"), pair.CertFile, pair.KeyFile, clients)
	return runRegistry(ctx, bin, dir, "https", section)
}
