package config

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/upstream"
)

// Path is an absolute path of a file or folder, or empty where the key's
// comment says what that means.
type Path string

// UnmarshalText accepts empty text and absolute paths, and returns
// errdefs.ErrInvalidArgument for anything else.
func (p *Path) UnmarshalText(text []byte) error {
	s := string(text)
	if s != "" && (!filepath.IsAbs(s) || strings.ContainsRune(s, 0)) {
		return invalid("%q: want an absolute path", s)
	}
	*p = Path(s)
	return nil
}

// Address is a TCP address to listen on: host:port, where host is an IP
// address, localhost, or empty. Empty means loopback and not, as in package
// net, every interface: opening larder to a network takes an explicit address.
type Address string

// UnmarshalText returns errdefs.ErrInvalidArgument unless text is host:port.
func (a *Address) UnmarshalText(text []byte) error {
	host, port, err := net.SplitHostPort(string(text))
	if err != nil {
		return invalid(`%q: want host:port, for instance "127.0.0.1:5929"`, text)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return invalid("%q: port must be 0 to 65535", text)
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && host != "localhost" {
		return invalid("%q: host must be an IP address or localhost", text)
	}
	*a = Address(text)
	return nil
}

// Listen returns the address in the form that net.Listen takes.
func (a Address) Listen() string {
	if strings.HasPrefix(string(a), ":") {
		return "127.0.0.1" + string(a)
	}
	return string(a)
}

// Loopback reports whether only this machine can reach the address.
func (a Address) Loopback() bool {
	host, _, err := net.SplitHostPort(string(a))
	if err != nil {
		return false
	}
	if host == "" || host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// Host is a registry host as in image names: host[:port].
type Host string

// UnmarshalText returns errdefs.ErrInvalidArgument unless remotes.ParseHost
// accepts text.
func (h *Host) UnmarshalText(text []byte) error {
	if mayHoldCredential(string(text)) {
		return errCredential()
	}
	if _, err := remotes.ParseHost(string(text)); err != nil {
		return err
	}
	*h = Host(text)
	return nil
}

// Canonical returns the form in which two spellings of a registry host are
// equal: that of remotes.ParseHost, or h itself if that does not accept it.
func (h Host) Canonical() string {
	if host, err := remotes.ParseHost(string(h)); err == nil {
		return host
	}
	return string(h)
}

// Endpoint is the address of an upstream as upstream.ParseEndpoint reads it:
// [http[s]://]host[:port][/prefix].
type Endpoint string

// UnmarshalText returns errdefs.ErrInvalidArgument unless
// upstream.ParseEndpoint accepts text.
func (e *Endpoint) UnmarshalText(text []byte) error {
	if mayHoldCredential(string(text)) {
		return errCredential()
	}
	if _, err := upstream.ParseEndpoint(string(text)); err != nil {
		return err
	}
	*e = Endpoint(text)
	return nil
}

// mayHoldCredential reports text of the form user:password@host. Such text is
// never repeated in an error.
func mayHoldCredential(text string) bool { return strings.Contains(text, "@") }

func errCredential() error {
	return invalid("credentials do not belong in an address (nor does @)")
}

// PinName is what is pinned: a reference, a digest, or a pattern.
type PinName string

// UnmarshalText returns errdefs.ErrInvalidArgument unless remotes.CheckPin
// accepts text.
func (p *PinName) UnmarshalText(text []byte) error {
	*p = PinName(text)
	return remotes.CheckPin(string(text))
}

// Reason is why something is pinned.
type Reason string

// UnmarshalText returns errdefs.ErrInvalidArgument unless
// remotes.CheckPinReason accepts text.
func (r *Reason) UnmarshalText(text []byte) error {
	*r = Reason(text)
	return remotes.CheckPinReason(string(text))
}

// Glob is a pattern in which * stands for any characters, slashes included.
type Glob string

// UnmarshalText returns errdefs.ErrInvalidArgument for text that can match no
// reference or host.
func (g *Glob) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "" {
		return invalid("%q: want a pattern, * for everything", s)
	}
	if i := strings.IndexFunc(s, unfitForGlob); i >= 0 {
		return invalid("%q: %q cannot stand in a pattern, only * is special", s, []rune(s[i:])[0])
	}
	*g = Glob(s)
	return nil
}

// unfitForGlob reports characters that no reference or host has. They are
// refused so that ? or [a-z] does not look as if it worked.
func unfitForGlob(r rune) bool {
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !letter && !strings.ContainsRune("*._-/:", r)
}
