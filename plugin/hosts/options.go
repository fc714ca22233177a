package hosts

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

const (
	// DefaultCertsDir is the folder that containerd's packages and most distributions use for hosts.toml files.
	DefaultCertsDir = "/etc/containerd/certs.d"

	// DefaultHost names the folder that containerd reads for every registry host without a folder of its own.
	DefaultHost = "_default"

	// SecretHeader is the request header in which containerd sends the node secret to the mirror.
	SecretHeader = "X-Larder-Secret"
)

// Options says where the files go and what stands in them.
type Options struct {
	// CertsDir is containerd's config_path; "" means DefaultCertsDir.
	CertsDir string
	// MirrorURL is the mirror as containerd reaches it, without a path, as in "http://127.0.0.1:5929".
	MirrorURL string
	// Secret is the node secret that containerd sends with each request; "" sends none.
	Secret string
	// Registries are the registry hosts that get a file; nil means DefaultRegistries. Hosts for which larder
	// wrote a file earlier are kept up to date as well, so that none is left with an old address or secret.
	Registries []string
	// Force overwrites files of larder's own that were changed by hand. It never drops a file of others.
	Force bool
}

// DefaultRegistries returns the registry hosts that larder's mirror stands in front of without being told.
// ECR's own hosts have one name an account and region; they are caught by DefaultHost.
func DefaultRegistries() []string {
	return []string{
		"docker.io", "public.ecr.aws", "registry.k8s.io", "quay.io", "ghcr.io", "registry.gitlab.com", "cgr.dev",
		"localhost", DefaultHost,
	}
}

// MirrorURL returns the URL under which containerd on the same node reaches a mirror that listens on address.
// An unspecified address (":5929", "0.0.0.0:5929") is reached on loopback. A port chosen at start (":0") is
// refused with errdefs.ErrInvalidArgument, since hosts.toml must name it beforehand.
func MirrorURL(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("mirror address %q: want host:port: %w", address, errdefs.ErrInvalidArgument)
	}
	if port == "" || port == "0" {
		return "", fmt.Errorf("mirror address %q: hosts.toml needs a fixed port: %w", address, errdefs.ErrInvalidArgument)
	}
	switch ip := net.ParseIP(host); {
	case host == "", ip.Equal(net.IPv4zero):
		host = "127.0.0.1"
	case ip.Equal(net.IPv6zero):
		host = "::1"
	}
	return "http://" + net.JoinHostPort(host, port), nil
}

// applyDefaultsAndValidate returns o with its defaults filled in, or an error that wraps
// errdefs.ErrInvalidArgument. Everything that ends up in a path or in TOML is checked here and nowhere else.
func (o Options) applyDefaultsAndValidate() (Options, error) {
	if o.CertsDir == "" {
		o.CertsDir = DefaultCertsDir
	}
	o.CertsDir = filepath.Clean(o.CertsDir)
	if o.Registries == nil {
		o.Registries = DefaultRegistries()
	}
	u, err := url.Parse(o.MirrorURL)
	switch {
	case err != nil:
		return o, fmt.Errorf("mirror URL: %w: %w", err, errdefs.ErrInvalidArgument)
	case u.Scheme != "http" && u.Scheme != "https":
		return o, fmt.Errorf("mirror URL %q: scheme must be http or https: %w", o.MirrorURL, errdefs.ErrInvalidArgument)
	case u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return o, fmt.Errorf("mirror URL %q: want scheme://host:port and no more: %w", u.Redacted(), errdefs.ErrInvalidArgument)
	}
	o.MirrorURL = u.Scheme + "://" + u.Host
	if o.Secret != "" {
		if err := checkSecret(o.Secret); err != nil {
			return o, err
		}
	}
	o.Registries = slices.Clone(o.Registries)
	for i, host := range o.Registries {
		host = strings.ToLower(host)
		if host != DefaultHost && !validHost(host) {
			return o, fmt.Errorf("registry %q: want a registry host such as quay.io or registry.example:5000: %w", host, errdefs.ErrInvalidArgument)
		}
		o.Registries[i] = host
	}
	return o, nil
}

// validHost reports whether an image name can begin with host and containerd then looks for host's folder: that is
// not so for a bare word, which is a part of docker.io's repositories, nor for docker.io's other names. It also
// keeps separators and dots-only names away from paths.
func validHost(host string) bool {
	named, err := reference.ParseNormalizedNamed(host + "/repository")
	return err == nil && reference.Domain(named) == host && !strings.Contains(host, "/")
}

// hostDirectory names the folder that containerd looks for first: "registry:5000" becomes "registry_5000_".
func hostDirectory(host string) string {
	name, port, found := cutLast(host, ":")
	if !found || name == "" {
		return host
	}
	return name + "_" + port + "_"
}

// hostOfDirectory is the inverse of hostDirectory, for messages.
func hostOfDirectory(dir string) string {
	name, found := strings.CutSuffix(dir, "_")
	if !found {
		return dir
	}
	host, port, found := cutLast(name, "_")
	if !found || host == "" || strings.Trim(port, "0123456789") != "" {
		return dir
	}
	return host + ":" + port
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
