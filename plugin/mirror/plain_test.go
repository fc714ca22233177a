package mirror

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestParsePlain(t *testing.T) {
	t.Parallel()
	const hosted = "Host: larder\r\n"
	const text = "GET /v2/library/app/manifests/1?ns=docker.io HTTP/1.1\r\nHost: [::1]:5000\r\nuser-agent: \t containerd/v2 \r\n" +
		"Accept: a/b, */*\r\nACCEPT: c\r\nAccept-Encoding: gzip\r\nX-Larder-Secret: hunter2\r\nAuthorization: Basic x\r\n\r\n"
	want := plain{path: "/v2/library/app/manifests/1", query: "ns=docker.io", secret: "hunter2", agent: "containerd/v2"}
	if p, n, ok := parsePlain([]byte(text + "GET /")); !ok || n != len(text) || p != want {
		t.Errorf("got %+v, %d, %t, want %+v, %d", p, n, ok, want, len(text))
	}
	if p, _, ok := parsePlain([]byte("HEAD /v2/a HTTP/1.1\r\n" + hosted + "\r\n")); !ok || !p.head || p.path != "/v2/a" || p.query != "" {
		t.Errorf("HEAD: %+v, %t", p, ok)
	}
	for name, text := range map[string]string{
		"nothing":           "",
		"part":              "GET /v2/a HTTP/1.1\r\n" + hosted,
		"newlines":          "GET /v2/a HTTP/1.1\nHost: larder\n\n",
		"POST":              "POST /v2/a HTTP/1.1\r\n" + hosted + "\r\n",
		"lower case":        "get /v2/a HTTP/1.1\r\n" + hosted + "\r\n",
		"HTTP/1.0":          "GET /v2/a HTTP/1.0\r\n" + hosted + "\r\n",
		"no version":        "GET /v2/a\r\n" + hosted + "\r\n",
		"two blanks":        "GET  /v2/a HTTP/1.1\r\n" + hosted + "\r\n",
		"elsewhere":         "GET /v3/a HTTP/1.1\r\n" + hosted + "\r\n",
		"absolute":          "GET http://larder/v2/a HTTP/1.1\r\n" + hosted + "\r\n",
		"escaped":           "GET /v2/%61 HTTP/1.1\r\n" + hosted + "\r\n",
		"escaped query":     "GET /v2/a?ns=%61 HTTP/1.1\r\n" + hosted + "\r\n",
		"plus":              "GET /v2/a?ns=a+b HTTP/1.1\r\n" + hosted + "\r\n",
		"fragment":          "GET /v2/a#b HTTP/1.1\r\n" + hosted + "\r\n",
		"long":              "GET /v2/" + strings.Repeat("a", maxTargetSize) + " HTTP/1.1\r\n" + hosted + "\r\n",
		"no host":           "GET /v2/a HTTP/1.1\r\nAccept: a\r\n\r\n",
		"no header":         "GET /v2/a HTTP/1.1\r\n\r\n",
		"two hosts":         "GET /v2/a HTTP/1.1\r\n" + hosted + hosted + "\r\n",
		"empty host":        "GET /v2/a HTTP/1.1\r\nHost:\r\n\r\n",
		"odd host":          "GET /v2/a HTTP/1.1\r\nHost: a/b\r\n\r\n",
		"two secrets":       "GET /v2/a HTTP/1.1\r\n" + hosted + "X-Larder-Secret: a\r\nX-Larder-Secret: b\r\n\r\n",
		"folded":            "GET /v2/a HTTP/1.1\r\n" + hosted + "Accept: a\r\n b\r\n\r\n",
		"blank before":      "GET /v2/a HTTP/1.1\r\n" + hosted + " Accept: a\r\n\r\n",
		"blank behind name": "GET /v2/a HTTP/1.1\r\n" + hosted + "Accept : a\r\n\r\n",
		"no colon":          "GET /v2/a HTTP/1.1\r\n" + hosted + "Accept\r\n\r\n",
		"bare return":       "GET /v2/a HTTP/1.1\r\n" + hosted + "Accept: a\rb\r\n\r\n",
		"zero byte":         "GET /v2/a HTTP/1.1\r\n" + hosted + "Accept: a\x00\r\n\r\n",
		"body":              "GET /v2/a HTTP/1.1\r\n" + hosted + "Content-Length: 1\r\n\r\nx",
		"chunks":            "GET /v2/a HTTP/1.1\r\n" + hosted + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"range":             "GET /v2/a HTTP/1.1\r\n" + hosted + "Range: bytes=0-1\r\n\r\n",
		"condition":         "GET /v2/a HTTP/1.1\r\n" + hosted + "If-None-Match: \"a\"\r\n\r\n",
		"via":               "GET /v2/a HTTP/1.1\r\n" + hosted + "Via: 1.1 larder\r\n\r\n",
		"last request":      "GET /v2/a HTTP/1.1\r\n" + hosted + "Connection: close\r\n\r\n",
	} {
		if p, n, ok := parsePlain([]byte(text)); ok {
			t.Errorf("%s: got %+v, %d, want that it is net/http's", name, p, n)
		}
	}
}

// What is plain is understood by net/http, and the same is understood.
func FuzzPlain(f *testing.F) {
	f.Add([]byte("GET /v2/library/app/manifests/1?ns=docker.io HTTP/1.1\r\nHost: a:1\r\nUser-Agent: b\r\nAccept: c\r\nX-Larder-Secret: d\r\n\r\nGET"))
	f.Add([]byte("HEAD /v2//a?b?&c==d HTTP/1.1\r\nHost: [::1]\r\nAccept-Encoding:gzip\t\r\nAuthorization: Basic e\r\nAccept:\r\n\r\n"))
	f.Add([]byte("HEAD /v2/:0 HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, n, ok := parsePlain(data)
		if !ok {
			return
		}
		left := bytes.NewReader(data)
		buffered := bufio.NewReaderSize(left, 16)
		r, err := http.ReadRequest(buffered)
		if err != nil {
			t.Fatalf("%q: net/http says %v", data[:n], err)
		}
		if used := len(data) - left.Len() - buffered.Buffered(); used != n {
			t.Errorf("%q: net/http reads %d bytes, not %d", data, used, n)
		}
		method := map[bool]string{true: http.MethodHead, false: http.MethodGet}[p.head]
		if r.Method != method || r.URL.Path != p.path || r.URL.RawQuery != p.query || r.URL.RawPath != "" || r.URL.Host != "" {
			t.Errorf("%q: net/http reads %s %+v, and not %+v", data[:n], r.Method, r.URL, p)
		}
		if r.UserAgent() != p.agent || r.Header.Get(SecretHeader) != p.secret || isConditional(r.Header) || r.Header.Get("Via") != "" {
			t.Errorf("%q: net/http reads %v, and not %+v", data[:n], r.Header, p)
		}
		if body, err := io.ReadAll(r.Body); r.Close || r.ProtoMajor != 1 || r.ProtoMinor != 1 || r.ContentLength != 0 || len(body) > 0 || err != nil {
			t.Errorf("%q: closes %t, %s, length %d, body %q, %v", data[:n], r.Close, r.Proto, r.ContentLength, body, err)
		}
	})
}
