package integration

import (
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/remotes/remotestest"
)

// Range works on a stored blob and on one that is still arriving, and asks no
// more of upstream than the whole blob once.
func TestRange(t *testing.T) {
	t.Parallel()
	const size, gate = 8 << 20, 4 << 20
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	blob := noise(100, size)
	desc := upstream.PutBlob("library/big", blob)
	release := make(chan struct{})
	upstream.Fault(remotestest.Blobs(), remotestest.Gate(gate, release))
	l := b.larder(dockerHub(upstream.URL()))
	url := blobURL(l.URL, "library/big", desc.Digest)

	type result struct {
		a   answer
		err error
	}
	first, late := make(chan result, 1), make(chan result, 1)
	ask := func(to chan<- result, header ...string) {
		a, err := fetch(t.Context(), http.MethodGet, url, header...)
		to <- result{a, err}
	}
	go ask(first)
	atGate := func(rs []remotestest.Request) bool { return len(rs) > 0 && rs[len(rs)-1].Bytes >= gate }
	if err := upstream.Await(t.Context(), atGate); err != nil {
		t.Fatal(err)
	}
	go ask(late, "Range", "bytes=1048576-")
	if a := get(t, url, "Range", "bytes=100-199"); a.status != http.StatusPartialContent || a.digest != digest.FromBytes(blob[100:200]) {
		t.Errorf("range of what has arrived: got %v, want 206 and bytes 100 to 199", a)
	}
	close(release)
	if r := <-first; r.err != nil || !r.a.whole(desc.Digest) {
		t.Errorf("first client: got %v, %v", r.a, r.err)
	}
	if r := <-late; r.err != nil || r.a.status != http.StatusPartialContent || r.a.bodyErr != nil || r.a.digest != digest.FromBytes(blob[1<<20:]) {
		t.Errorf("late client with Range: got %v, %v, want 206 and the rest", r.a, r.err)
	}
	eventually(t, "the fill is over and the blob a hit", func() bool { return get(t, url).cache() == "hit" })
	for header, want := range map[string][]byte{"bytes=0-0": blob[:1], "bytes=-5": blob[size-5:], "bytes=8388600-": blob[8388600:]} {
		if a := get(t, url, "Range", header); a.status != http.StatusPartialContent || a.digest != digest.FromBytes(want) || a.cache() != "hit" {
			t.Errorf("%s of the stored blob: got %v, X-Larder-Cache %q", header, a, a.cache())
		}
	}
	if a := get(t, url, "Range", "bytes=8388608-"); a.status != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("range behind the end: got %v, want 416", a)
	}
	if n := upstream.Count(http.MethodGet, "/blobs/"); n != 1 {
		t.Errorf("upstream saw %d GETs, want 1", n)
	}
}

// HEAD must tell containerd digest and size, or it costs an extra GET.
func TestHead(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	upstream := remotestest.New(t, remotestest.WithoutDigestHeader())
	img := remotestest.Build(remotestest.ImageSpec{Seed: 101})
	upstream.PutImage("library/app", "1", img)
	l := b.larder(dockerHub(upstream.URL()))
	for _, url := range []string{
		manifestURL(l.URL, "library/app", "1"),
		manifestURL(l.URL, "library/app", img.Root.Digest.String()),
		blobURL(l.URL, "library/app", largest(img).Digest),
	} {
		for _, when := range []string{"cold", "warm"} {
			head, err := fetch(t.Context(), http.MethodHead, url)
			if err != nil {
				t.Fatal(err)
			}
			whole := get(t, url)
			for _, key := range []string{"Docker-Content-Digest", "Content-Length", "Content-Type"} {
				if head.header.Get(key) == "" || head.header.Get(key) != whole.header.Get(key) {
					t.Errorf("%s %s: %s is %q in HEAD and %q in GET", when, url, key, head.header.Get(key), whole.header.Get(key))
				}
			}
			if head.size != 0 || whole.header.Get("Docker-Content-Digest") != whole.digest.String() {
				t.Errorf("%s %s: HEAD has %d bytes of body; GET has digest %s", when, url, head.size, whole.digest)
			}
		}
	}
}
