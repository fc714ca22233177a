package integration

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// impatient makes larder's own limits short, so that a test of a fault takes
// seconds. It begins with a top-level key: config before it may only be such keys
// too. answerLimit is what a client may wait for a header then.
const (
	impatient = `mirror.wait = "2s"
[upstream]
header_timeout = "1s"
pause = "100ms"
[fill]
stall = "1s"
attempts = 2
`
	answerLimit = 5 * time.Second
)

type fault struct {
	f    remotestest.FaultFunc
	size int // of the blob
	// mayServe: larder can make the answer right in spite of the fault.
	mayServe bool
}

// blobFaults are the ways in which an upstream lies about a blob. Wrong and short
// bodies come in two sizes: of a large one larder passes on most bytes before it
// can know, of a small one none.
func blobFaults() map[string]fault {
	const small, large = 300_000, 5 << 20
	return map[string]fault{
		"wrong bytes, small":            {f: remotestest.WrongBytes(1000), size: small},
		"wrong bytes, large":            {f: remotestest.WrongBytes(1000), size: large},
		"wrong last byte":               {f: remotestest.WrongBytes(large - 1), size: large},
		"short, clean end, small":       {f: remotestest.ShortBody(small - 1), size: small},
		"short, clean end, large":       {f: remotestest.ShortBody(large / 2), size: large},
		"short, chunked":                {f: remotestest.ShortChunked(large / 2), size: large},
		"empty, clean end":              {f: remotestest.ShortBody(0), size: small},
		"content-length too large":      {f: remotestest.WrongContentLength(1000), size: large, mayServe: true},
		"content-length too small":      {f: remotestest.WrongContentLength(-1000), size: large},
		"cut":                           {f: remotestest.CutBody(large / 2), size: large, mayServe: true},
		"hang in the body":              {f: remotestest.HangBody(large / 2), size: large, mayServe: true},
		"hang before the header":        {f: remotestest.Hang(), size: small},
		"429":                           {f: remotestest.TooManyRequests(time.Second), size: small},
		"500":                           {f: remotestest.Error(http.StatusInternalServerError, "UNKNOWN", "down"), size: small},
		"403":                           {f: remotestest.Error(http.StatusForbidden, "DENIED", "no"), size: small},
		"no answer":                     {f: remotestest.Abort(), size: small},
		"header only":                   {f: remotestest.HeaderOnly(), size: large, mayServe: true},
		"redirect to itself":            {f: remotestest.RedirectTo("?"), size: small},
		"redirect to the metadata host": {f: remotestest.RedirectTo("http://169.254.169.254/latest/meta-data/"), size: small},
	}
}

// Whatever the upstream does, a client never has wrong bytes with a clean end,
// nothing wrong is published, and the next pull after the fault succeeds.
func TestBlobFaults(t *testing.T) {
	t.Parallel()
	for name, f := range blobFaults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder")
			upstream := remotestest.New(t)
			desc := upstream.PutBlob("library/app", noise(50, f.size))
			l := b.larder(impatient + dockerHub(upstream.URL()))
			url := blobURL(l.URL, "library/app", desc.Digest)

			remove := upstream.Fault(remotestest.Digest(desc.Digest), f.f)
			a := getFaulty(t, url, desc.Size > 1<<20)
			t.Logf("during the fault: %v, header after %v", a, a.took.Round(time.Millisecond))
			checkFaulty(t, a, desc.Digest, desc.Size, f.mayServe)
			verifyStore(t, l)
			if !f.mayServe && published(l, desc.Digest) {
				t.Error("a blob that the upstream never sent right is published")
			}

			remove()
			eventually(t, "the next pull after the fault gets the whole blob", func() bool {
				return get(t, url).whole(desc.Digest)
			})
			verifyStore(t, l)
		})
	}
}

// The end of a fill is held back until the digest matched: a client cannot even
// by bad timing have all of a wrong blob.
func TestWrongBytesAreHeldBack(t *testing.T) {
	t.Parallel()
	const size, held = 4 << 20, 1 << 20
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/app", noise(53, size))
	release := make(chan struct{})
	upstream.Fault(remotestest.Blobs(), remotestest.Times(1, remotestest.Gate(size-1, release)))
	upstream.Fault(remotestest.Blobs(), remotestest.WrongBytes(1000))
	l := b.larder(impatient + dockerHub(upstream.URL()))

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, blobURL(l.URL, "library/app", desc.Digest), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	// Upstream has sent all but one byte: what larder lets out now is what it
	// would let out of any blob.
	before, err := io.CopyN(io.Discard, resp.Body, size-held)
	if err != nil {
		t.Fatalf("status %s: read %d bytes: %v", resp.Status, before, err)
	}
	more := make(chan int64, 1)
	go func() {
		n, _ := io.Copy(io.Discard, resp.Body)
		more <- n
	}()
	close(release)
	if n := <-more; n > 0 {
		t.Errorf("the client got %d bytes of the last MiB of a wrong blob, want none", n)
	}
}

// A manifest is small: nothing of a wrong one may reach a client.
func TestManifestFaults(t *testing.T) {
	t.Parallel()
	faults := map[string]remotestest.FaultFunc{
		"wrong bytes":      remotestest.WrongBytes(20),
		"short, clean end": remotestest.ShortBody(100),
		"empty, clean end": remotestest.ShortBody(0),
		"hang":             remotestest.Hang(),
		"hang in the body": remotestest.HangBody(100),
		"429":              remotestest.TooManyRequests(time.Second),
		"not a manifest":   remotestest.Status(http.StatusOK, http.Header{"Content-Type": {"text/html"}}, "<html>please log in</html>"),
	}
	for name, f := range faults {
		for _, by := range []string{"tag", "digest"} {
			t.Run(name+", by "+by, func(t *testing.T) {
				t.Parallel()
				b := newBench(t, "larder")
				upstream := remotestest.New(t)
				root := upstream.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 51}))
				l := b.larder(impatient + dockerHub(upstream.URL()))
				url := manifestURL(l.URL, "library/app", "1")
				if by == "digest" {
					url = manifestURL(l.URL, "library/app", root.Digest.String())
				}
				remove := upstream.Fault(remotestest.Manifests(), f)
				a := get(t, url)
				t.Logf("during the fault: %v, header after %v", a, a.took.Round(time.Millisecond))
				checkFaulty(t, a, root.Digest, root.Size, false)
				verifyStore(t, l)
				remove()
				eventually(t, "the next pull after the fault gets the manifest", func() bool {
					return get(t, url).whole(root.Digest)
				})
			})
		}
	}
}

// checkFaulty holds larder to what containerd can live with: the right bytes, or
// a cut (of a small object: nothing at all), or an early and honest error that sends it to its next host.
func checkFaulty(t *testing.T, a answer, want digest.Digest, blobSize int64, mayServe bool) {
	t.Helper()
	switch {
	case a.whole(want):
		if !mayServe {
			t.Error("the client has the right bytes: the fault did not bite, so this test proves nothing")
		}
	case a.status == http.StatusOK && a.bodyErr == nil:
		t.Errorf("wrong or short bytes ended cleanly: %v", a)
	case a.status == http.StatusOK && blobSize <= 1<<20:
		t.Errorf("bytes of a wrong object of %d bytes got out: %v", blobSize, a)
	case a.status == http.StatusTooManyRequests || (a.status >= 300 && a.status < 400):
		t.Errorf("status %d: containerd retries 429 at once and follows redirects; want 404 or 503", a.status)
	}
	if a.took > answerLimit {
		t.Errorf("header after %v: want at most %v", a.took, answerLimit)
	}
}

// getFaulty is get during a fault. A large blob's connection may be cut before
// even the header got out, if the fault shows that soon: no answer is no wrong
// answer.
func getFaulty(t *testing.T, url string, mayCut bool) answer {
	t.Helper()
	a, err := fetch(t.Context(), http.MethodGet, url)
	if errors.Is(err, io.EOF) && mayCut {
		return answer{bodyErr: err}
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// verifyStore hashes every published blob, and returns how many there are.
func verifyStore(t *testing.T, l *parts.Larder) (blobs int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(l.Root(), "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		want := digest.NewDigestFromEncoded(digest.Algorithm(filepath.Base(filepath.Dir(path))), d.Name())
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		blobs++
		verifier := want.Verifier()
		if _, err := io.Copy(verifier, f); err != nil {
			return err
		}
		if !verifier.Verified() {
			t.Errorf("published blob %s has other bytes", want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return blobs
}

// A registry that sends blobs from elsewhere must not hand the pull's
// credentials on to there, and may send larder to no private address that the
// config does not name.
func TestRedirect(t *testing.T) {
	t.Parallel()
	for name, listed := range map[string]bool{"listed": true, "not listed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder")
			upstream, elsewhere := remotestest.New(t, remotestest.WithToken()), remotestest.New(t)
			blob := noise(52, 100_000)
			desc := upstream.PutBlob("library/app", blob)
			elsewhere.PutBlob("library/app", blob)
			upstream.Fault(remotestest.Digest(desc.Digest), remotestest.RedirectHost(elsewhere.URL()))
			config := impatient
			if listed {
				config = strings.Replace(config, "[upstream]\n", "[upstream]\nprivate = [\""+elsewhere.URL()+"\"]\n", 1)
			}
			secret := "Bearer pod-secret"
			l := b.larder(config + dockerHub(upstream.URL()))
			a := get(t, blobURL(l.URL, "library/app", desc.Digest), "Authorization", secret, "X-Larder-Secret", secret, "Cookie", secret)
			if a.whole(desc.Digest) != listed {
				t.Errorf("redirect to a private address: got %v; want the blob: %t", a, listed)
			}
			requests := elsewhere.Requests()
			if listed != (len(requests) > 0) {
				t.Errorf("the redirect's target saw %d requests", len(requests))
			}
			for _, r := range append(requests, upstream.Requests()...) {
				for _, key := range []string{"X-Larder-Secret", "Cookie"} {
					if r.Header.Get(key) != "" {
						t.Errorf("%s %s was sent the client's %s", r.Method, r.Path, key)
					}
				}
			}
			for _, r := range requests {
				if r.Header.Get("Authorization") != "" {
					t.Errorf("the redirect's target was sent Authorization %q", r.Header.Get("Authorization"))
				}
			}
		})
	}
}
