package remotestest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"
)

// bodySize is more than net/http holds back in a buffer.
const bodySize = int64(64 << 10)

func payload() []byte { return bytes.Repeat([]byte("0123456789abcdef"), int(bodySize)/16) }

func TestBodyFaults(t *testing.T) {
	t.Parallel()
	whole := payload()
	flipped := bytes.Clone(whole)
	flipped[40000] ^= 0xff
	tests := []bodyFault{
		{"none", SetHeader("X-Test", "1"), whole, "65536", false},
		{"cut", CutBody(40000), whole[:40000], "65536", true},
		{"cut small", CutBody(1), whole[:1], "65536", true},
		{"cut beyond", CutBody(bodySize), whole, "65536", false},
		{"header only", HeaderOnly(), nil, "65536", true},
		{"short", ShortBody(40000), whole[:40000], "40000", false},
		{"short to nothing", ShortBody(0), nil, "0", false},
		{"short beyond", ShortBody(bodySize + 1), whole, "65536", false},
		{"chunked", ShortChunked(40000), whole[:40000], "", false},
		{"chunked small", ShortChunked(3), whole[:3], "", false},
		{"wrong", WrongBytes(40000), flipped, "65536", false},
		{"wrong beyond", WrongBytes(bodySize), whole, "65536", false},
		{"length over", WrongContentLength(10), whole, "65546", true},
		{"length under", WrongContentLength(-10), whole[:bodySize-10], "65526", false},
	}
	// The two ways of serving hand the body to a fault in pieces and at once.
	for way, opts := range map[string][]Option{"pieces": nil, "at once": {WithoutRange()}} {
		for _, tc := range tests {
			t.Run(tc.name+"/"+way, func(t *testing.T) {
				t.Parallel()
				checkBodyFault(t, New(t, opts...), tc)
			})
		}
	}
}

// bodyFault is a fault and what clients see of it.
type bodyFault struct {
	name   string
	fault  FaultFunc
	body   []byte
	length string // Content-Length of GET and HEAD
	broken bool   // reading ends in an error
}

func checkBodyFault(t *testing.T, r *Registry, tc bodyFault) {
	t.Helper()
	desc := r.PutBlob("a/b", payload())
	r.Fault(Blobs(), tc.fault)
	url := r.URL() + "/v2/a/b/blobs/" + desc.Digest.String()
	got := ask(t, "GET", url)
	if got.status != 200 || !bytes.Equal(got.body, tc.body) || (got.err != nil) != tc.broken {
		t.Errorf("got %d, %d bytes, error %v; want 200, %d bytes, error %t",
			got.status, len(got.body), got.err, len(tc.body), tc.broken)
	}
	if l := got.header.Get("Content-Length"); l != tc.length {
		t.Errorf("got Content-Length %q, want %q", l, tc.length)
	}
	head := ask(t, "HEAD", url)
	if l := head.header.Get("Content-Length"); l != tc.length || head.status != 200 {
		t.Errorf("HEAD: got %d, Content-Length %q, want 200, %q", head.status, l, tc.length)
	}
	r.mu.Lock()
	kept := r.repos["a/b"].blobs[desc.Digest]
	r.mu.Unlock()
	if !bytes.Equal(kept, payload()) {
		t.Error("the fault changed the stored blob")
	}
}

func TestHangEndsWithClientAndWithRegistry(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]FaultFunc{"header": Hang(), "body": HangBody(100), "gate": Gate(100, nil)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := New(t)
			desc := r.PutBlob("a", payload())
			r.Fault(Any(), f)
			url := r.URL() + "/v2/a/blobs/" + desc.Digest.String()
			started := func(n int) func([]Request) bool {
				return func(all []Request) bool {
					return len(all) == n && (name == "header" || all[n-1].Bytes == 100)
				}
			}

			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			get := func(ctx context.Context) {
				a, err := try(ctx, t, "GET", url)
				ended <- errors.Join(err, a.err)
			}
			go get(ctx)
			if err := r.Await(soon(t), started(1)); err != nil {
				t.Fatal(err)
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want canceled", err)
			}
			if err := r.Await(soon(t), func(all []Request) bool { return all[0].Done }); err != nil {
				t.Error(err)
			}

			go get(t.Context())
			if err := r.Await(soon(t), started(2)); err != nil {
				t.Fatal(err)
			}
			r.Stop()
			if err := <-ended; err == nil {
				t.Error("got a whole answer from a stopped registry")
			}
			if all := r.Requests(); !all[1].Done {
				t.Error("a handler runs after Stop")
			}
		})
	}
}

func TestGateHoldsExactly(t *testing.T) {
	t.Parallel()
	r := New(t)
	desc := r.PutBlob("a", payload())
	release := make(chan struct{})
	r.Fault(Blobs(), Gate(30000, release))
	resp, err := client(t).Get(r.URL() + "/v2/a/blobs/" + desc.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 30000)
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		t.Fatal(err)
	}
	if q := r.Requests()[0]; q.Bytes != 30000 || q.Done {
		t.Errorf("at the gate: got %d bytes, done %t", q.Bytes, q.Done)
	}
	close(release)
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(slices.Concat(first, rest), payload()) {
		t.Errorf("got %d bytes, %v", len(first)+len(rest), err)
	}
}

func TestGateHeader(t *testing.T) {
	t.Parallel()
	r := New(t)
	release := make(chan struct{}, 1)
	r.Fault(Base(), GateHeader(release))
	go func() {
		if err := r.Await(soon(t), func(all []Request) bool { return len(all) == 1 }); err != nil {
			t.Error(err)
		}
		if q := r.Requests()[0]; q.Status != 0 {
			t.Errorf("got status %d before the release", q.Status)
		}
		release <- struct{}{}
	}()
	if a := ask(t, "GET", r.URL()+"/v2/"); a.status != 200 {
		t.Errorf("got %d", a.status)
	}
}

func TestAnswerFaults(t *testing.T) {
	t.Parallel()
	r := New(t)
	set := func(f FaultFunc) func() { return r.Fault(Base(), f) }
	url := r.URL() + "/v2/?a=1"

	remove := set(Status(503, http.Header{"x-Why": {"test"}}, "gone"))
	if a := ask(t, "GET", url); a.status != 503 || string(a.body) != "gone" || a.header.Get("X-Why") != "test" {
		t.Errorf("Status: got %+v", a)
	}
	remove()
	remove()
	if a := ask(t, "GET", url); a.status != 200 {
		t.Errorf("removed: got %d", a.status)
	}

	remove = set(TooManyRequests(1500 * time.Millisecond))
	if a := ask(t, "GET", url); a.status != 429 || a.header.Get("Retry-After") != "2" || !bytes.Contains(a.body, []byte(`"code":"TOOMANYREQUESTS"`)) {
		t.Errorf("TooManyRequests: got %+v", a)
	}
	remove()

	remove = set(Error(403, "DENIED", "no"))
	if a := ask(t, "GET", url); a.status != 403 || string(a.body) != `{"errors":[{"code":"DENIED","message":"no"}]}` {
		t.Errorf("Error: got %d %s", a.status, a.body)
	}
	remove()

	remove = set(RedirectTo("http://127.0.0.1:1/x"))
	if a := ask(t, "GET", url); a.status != 307 || a.header.Get("Location") != "http://127.0.0.1:1/x" {
		t.Errorf("RedirectTo: got %+v", a)
	}
	remove()

	remove = set(RedirectHost("http://127.0.0.1:1"))
	if a := ask(t, "GET", url); a.status != 307 || a.header.Get("Location") != "http://127.0.0.1:1/v2/?a=1" {
		t.Errorf("RedirectHost: got %+v", a)
	}
	remove()

	remove = set(SetHeader("Docker-Distribution-Api-Version", ""))
	if a := ask(t, "GET", url); a.status != 200 || a.header.Get("Docker-Distribution-Api-Version") != "" {
		t.Errorf("SetHeader: got %+v", a)
	}
	remove()

	set(Abort())
	if a, err := try(t.Context(), t, "GET", url); err == nil {
		t.Errorf("Abort: got %+v", a)
	}
}

func TestFaultsComposeInOrder(t *testing.T) {
	t.Parallel()
	r := New(t)
	desc := r.PutBlob("a", payload())
	url := r.URL() + "/v2/a/blobs/" + desc.Digest.String()
	r.Fault(Blobs(), Times(1, Status(500, nil, "")))
	r.Fault(Blobs(), After(1, Status(502, nil, "")))
	r.Fault(Blobs(), ShortBody(10))
	r.Fault(Blobs(), WrongBytes(0))
	r.Fault(Manifests(), Status(418, nil, ""))
	for i, want := range []int{500, 200, 502, 502} {
		a := ask(t, "GET", url)
		if a.status != want {
			t.Errorf("request %d: got %d, want %d", i, a.status, want)
		}
		if want == 200 && (len(a.body) != 10 || a.body[0] != '0'^0xff) {
			t.Errorf("request %d: got %q", i, a.body)
		}
	}
}

func TestSlow(t *testing.T) {
	t.Parallel()
	r := New(t)
	desc := r.PutBlob("a", payload())
	r.Fault(Blobs(), Slow(5*bodySize))
	start := time.Now()
	a := ask(t, "GET", r.URL()+"/v2/a/blobs/"+desc.Digest.String())
	if took := time.Since(start); took < 150*time.Millisecond || !bytes.Equal(a.body, payload()) {
		t.Errorf("got %d bytes in %v, want all in about 200ms", len(a.body), took)
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	const dgst = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	tests := []struct {
		name, method, path string
		match              Match
		want               bool
	}{
		{"blob", "GET", "/v2/a/b/blobs/" + dgst, Blobs(), true},
		{"blob is no manifest", "GET", "/v2/a/b/blobs/" + dgst, Manifests(), false},
		{"manifest", "GET", "/v2/a/manifests/v1", Manifests(), true},
		{"repository named manifests", "GET", "/v2/a/manifests/blobs/" + dgst, Blobs(), true},
		{"tags", "GET", "/v2/a/tags/list", Tags(), true},
		{"referrers", "GET", "/v2/a/referrers/" + dgst, Referrers(), true},
		{"base", "GET", "/v2/", Base(), true},
		{"token", "GET", "/token", Tokens(), true},
		{"repo", "GET", "/v2/a/b/tags/list", Repo("a/b"), true},
		{"repo prefix", "GET", "/v2/a/b/tags/list", Repo("a"), false},
		{"digest", "GET", "/v2/a/manifests/" + dgst, Digest(dgst), true},
		{"other digest", "GET", "/v2/a/manifests/v1", Digest(dgst), false},
		{"reference", "HEAD", "/v2/a/manifests/v1", Reference("v1"), true},
		{"reference is no blob", "GET", "/v2/a/blobs/v1", Reference("v1"), false},
		{"method", "HEAD", "/v2/", Method("HEAD"), true},
		{"and", "HEAD", "/v2/", And(Base(), Method("GET")), false},
		{"or", "HEAD", "/v2/", Or(Blobs(), Base()), true},
		{"or of none", "HEAD", "/v2/", Or(), false},
		{"not", "HEAD", "/v2/", Not(Any()), false},
		{"unranged", "GET", "/v2/", Ranged(), false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			req, err := http.NewRequest(tc.method, "http://x"+tc.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := tc.match(req); got != tc.want {
				t.Errorf("%s %s: got %t, want %t", tc.method, tc.path, got, tc.want)
			}
		})
	}
}
