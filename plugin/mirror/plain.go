package mirror

import (
	"bytes"
	"strings"
)

// plain is a request that asks for something as a whole, and says no more than clients
// say of themselves: what may be answered without net/http.
type plain struct {
	head        bool // HEAD, else GET
	path, query string
	secret      string // SecretHeader, "" if it is not there
	agent       string // User-Agent
}

// parsePlain reads a plain request from the start of b, which is n bytes. It is not ok
// for all that is unusual, not whole or not right: net/http reads that, and says what
// is wrong. What it accepts is a part of what net/http does, and means the same
// (RFC 9112, FuzzPlain).
func parsePlain(b []byte) (p plain, n int, ok bool) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return p, 0, false
	}
	n = end + len("\r\n\r\n")
	line, rest := cutLine(b[:end+len("\r\n")])
	if !p.readTarget(line) {
		return p, 0, false
	}
	var seen headers
	for len(rest) > 0 {
		line, rest = cutLine(rest)
		if !p.readHeader(line, &seen) {
			return p, 0, false
		}
	}
	return p, n, seen.host
}

// headers are those that may come once.
type headers struct{ host, agent, secret bool }

// once is true at the first call for a header.
func once(seen *bool) bool {
	first := !*seen
	*seen = true
	return first
}

func cutLine(b []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(b, []byte("\r\n"))
	return line, rest
}

// readTarget reads the first line.
func (p *plain) readTarget(line []byte) bool {
	method, rest, _ := bytes.Cut(line, []byte(" "))
	switch string(method) {
	case "GET":
	case "HEAD":
		p.head = true
	default:
		return false
	}
	target, ok := bytes.CutSuffix(rest, []byte(" HTTP/1.1"))
	if !ok || len(target) > maxTargetSize {
		return false
	}
	path, query, _ := strings.Cut(string(target), "?")
	p.path, p.query = path, query
	return strings.HasPrefix(path, "/v2/") && isAll(path, inPath) && isAll(query, inQuery)
}

// readHeader takes one line of the header. Of what a client accepts nothing depends,
// and a credential is looked at for private repositories only, which net/http serves.
func (p *plain) readHeader(line []byte, seen *headers) bool {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return false
	}
	value = bytes.Trim(value, " \t")
	is := func(want string) bool { return len(name) == len(want) && strings.EqualFold(string(name), want) }
	switch {
	case is("Host"):
		return once(&seen.host) && len(value) > 0 && isAll(value, inHost)
	case is("User-Agent"):
		p.agent = string(value)
		return once(&seen.agent) && isAll(value, inValue)
	case is(SecretHeader):
		p.secret = string(value)
		return once(&seen.secret) && isAll(value, inValue)
	case is("Accept"), is("Accept-Encoding"), is("Authorization"):
		return isAll(value, inValue)
	}
	return false
}

// isAll reports whether all bytes of a text are of a kind.
func isAll[T string | []byte](text T, is func(byte) bool) bool {
	for i := range len(text) {
		if !is(text[i]) {
			return false
		}
	}
	return true
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}

func inPath(c byte) bool  { return isWord(c) || c == '/' || c == ':' }
func inQuery(c byte) bool { return inPath(c) || c == '=' || c == '&' }
func inHost(c byte) bool  { return isWord(c) || c == ':' || c == '[' || c == ']' }

// inValue is less than a header's value may have: visible ASCII, and blanks.
func inValue(c byte) bool { return ' ' <= c && c <= '~' || c == '\t' }
