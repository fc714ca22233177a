package upstream

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/larder-project/larder/remotes/upstream/ranged"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// large is a blob that is asked for in parts. Tests of it are not parallel to
// others, which would have to wait for it, and some of those look at the time.
var large = sync.OnceValue(func() []byte {
	data := make([]byte, 24<<20+12345)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // it never fails
	return data
})

// withLarge puts it into a registry.
func withLarge(t testing.TB, opts ...remotestest.Option) (*remotestest.Registry, ocispec.Descriptor) {
	t.Helper()
	reg := remotestest.New(t, opts...)
	return reg, reg.PutBlob("team/app", large())
}

// inPartsOf is a client that may have eight connections for a blob.
func inPartsOf(t testing.TB, o Options, urls ...string) *Client {
	t.Helper()
	o.Named, o.Parallel = endpoints(t, urls...), 8
	c := newPool(t, o).Client(endpoint(t, urls[0]))
	return c
}

// eager makes a client's governor one that has found many connections to be worth
// it, in a time that passes at once.
func eager(t *testing.T, c *Client) *Client {
	t.Helper()
	g := &c.site.governor
	t.Run("eager", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g.Join() // for ever: what was found is forgotten when nothing runs
			n := 1
			for n < 16 {
				if g.More() {
					n++
					continue
				}
				<-time.After(time.Second)
				g.Received(n << 20)
			}
			for range n - 1 {
				g.Leave()
			}
		})
	})
	return c
}

// readInParts reads the large blob from an offset on.
func readInParts(t *testing.T, c *Client, desc ocispec.Descriptor, offset int64) ([]byte, int64, error) {
	t.Helper()
	body, size, err := c.BlobInParts(soon(t), "team/app", desc.Digest, offset, desc.Size)
	if err != nil {
		return nil, size, err
	}
	data, err := io.ReadAll(body)
	for range 2 {
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	}
	return data, size, err
}

// parts are the ranges of blobs that were asked for and sent, in the order of
// their offsets.
func parts(t *testing.T, reg *remotestest.Registry) (all [][2]int64, sent int64) {
	t.Helper()
	for _, q := range reg.Requests() {
		if !strings.Contains(q.Path, "/blobs/") || q.Status >= 300 {
			continue
		}
		var r [2]int64
		if _, err := fmt.Sscanf(q.Header.Get("Range"), "bytes=%d-%d", &r[0], &r[1]); err != nil {
			t.Errorf("asked for range %q: %v", q.Header.Get("Range"), err)
		}
		all = append(all, r)
		sent += q.Bytes
	}
	slices.SortFunc(all, func(a, b [2]int64) int { return int(a[0] - b[0]) })
	return all, sent
}

// TestInParts fetches a large blob by several requests, of which no two ask for
// the same byte. What is open is counted: places and memory come back.
//
//nolint:paralleltest // see large
func TestInParts(t *testing.T) {
	for name, opts := range map[string][]remotestest.Option{"open": nil, "token": {remotestest.WithToken()}, "no digest": {remotestest.WithoutDigestHeader()}} {
		reg, desc := withLarge(t, opts...)
		c := eager(t, inPartsOf(t, Options{MaxConnections: 32}, reg.URL()))
		for _, offset := range []int64{0, 1, 3<<20 + 5} {
			reg.ResetRequests()
			data, size, err := readInParts(t, c, desc, offset)
			if err != nil || size != desc.Size || !bytes.Equal(data, large()[offset:]) {
				t.Errorf("%s at %d: %d bytes of %d, %v", name, offset, len(data), size, err)
			}
			all, sent := parts(t, reg)
			next := offset
			for _, r := range all {
				if r[0] != next {
					t.Errorf("%s at %d: asked for %v, want it to begin at %d", name, offset, r, next)
				}
				next = r[1] + 1
			}
			if next != desc.Size || sent != desc.Size-offset || len(all) < 4 {
				t.Errorf("%s at %d: asked %d times, up to %d, and sent %d bytes", name, offset, len(all), next, sent)
			}
			if !c.site.places.blobs.TryAcquire(24) {
				t.Errorf("%s: places are lost", name)
			}
			c.site.places.blobs.Release(24)
			if left := c.memory.Left(); left != defaultAhead {
				t.Errorf("%s: %d bytes of memory are left", name, left)
			}
		}
		if n := reg.Count("", "/token"); n > 1 {
			t.Errorf("%s: %d tokens were asked for, want 1", name, n)
		}
	}
}

// TestOneRequest has blobs that are not asked for in parts: small ones, those
// whose size nobody knows, and those that may have no second connection.
//
//nolint:paralleltest // see large
func TestOneRequest(t *testing.T) {
	for name, tc := range map[string]struct {
		options  Options
		parallel int
		hint     int64
		ranges   int // requests with a range
	}{
		"small":      {parallel: 8, hint: ranged.Least - 1},
		"unknown":    {parallel: 8, hint: -1},
		"off":        {parallel: 1, hint: 40 << 20},
		"by default": {hint: 40 << 20},
		"slowed":     {parallel: 8, options: Options{MaxSpeed: 1 << 40}, hint: 40 << 20},
		"no places":  {parallel: 8, options: Options{MaxConnections: 3}, hint: 40 << 20},
	} {
		reg, desc := withLarge(t)
		tc.options.Named, tc.options.Parallel = endpoints(t, reg.URL()), tc.parallel
		c := newPool(t, tc.options).Client(endpoint(t, reg.URL()))
		body, size, err := c.BlobInParts(soon(t), "team/app", desc.Digest, 0, tc.hint)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		data, err := io.ReadAll(body)
		body.Close()
		if err != nil || size != desc.Size || !bytes.Equal(data, large()) {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
		if all := reg.Requests(); len(all) != 1 || all[0].Header.Get("Range") != "" {
			t.Errorf("%s: %d requests, the first for range %q", name, len(all), all[0].Header.Get("Range"))
		}
	}
}

// TestWrongHint has manifests that lie about the size of a blob, to both sides.
//
//nolint:paralleltest // see large
func TestWrongHint(t *testing.T) {
	reg := remotestest.New(t)
	c := eager(t, inPartsOf(t, Options{}, reg.URL()))
	for _, data := range [][]byte{nil, {1}, bytes.Repeat([]byte{1}, 300_000), large()} {
		desc := reg.PutBlob("team/app", data)
		for _, hint := range []int64{0, 100, ranged.Least, desc.Size + 1, 1 << 50} {
			body, size, err := c.BlobInParts(soon(t), "team/app", desc.Digest, 0, hint)
			if err != nil || size != desc.Size {
				t.Fatalf("%d bytes for %d: %d, %v", len(data), hint, size, err)
			}
			got, err := io.ReadAll(body)
			body.Close()
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes for %d: got %d, %v", len(data), hint, len(got), err)
			}
		}
	}
}

// TestNoRange has upstreams that know no parts, or do not say how many there are.
//
//nolint:paralleltest // see large
func TestNoRange(t *testing.T) {
	for name, tc := range map[string]struct {
		opts     []remotestest.Option
		fault    remotestest.FaultFunc
		requests int
	}{
		"ignored":  {opts: []remotestest.Option{remotestest.WithoutRange()}, requests: 1},
		"no total": {fault: remotestest.Times(1, remotestest.SetHeader("Content-Range", fmt.Sprintf("bytes 0-%d/*", ranged.First-1))), requests: 2},
	} {
		reg, desc := withLarge(t, tc.opts...)
		if tc.fault != nil {
			reg.Fault(remotestest.Blobs(), tc.fault)
		}
		c := eager(t, inPartsOf(t, Options{}, reg.URL()))
		data, size, err := readInParts(t, c, desc, 0)
		if err != nil || size != desc.Size || !bytes.Equal(data, large()) || len(reg.Requests()) != tc.requests {
			t.Errorf("%s: %d bytes of %d by %d requests, %v", name, len(data), size, len(reg.Requests()), err)
		}
	}
}

// behind matches requests for parts from an offset on.
func behind(offset int64) remotestest.Match {
	return func(r *http.Request) bool {
		var first int64
		_, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &first)
		return err == nil && first >= offset && strings.Contains(r.URL.Path, "/blobs/")
	}
}

// whole answers a request for a part with all of the large blob.
func whole(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	_, _ = w.Write(large()) // the client hangs up
}

// TestPartFaults fails one part, or all from one on, in every way. The bytes are
// right whatever happens, and what can go on by one connection does.
//
//nolint:paralleltest // see large
func TestPartFaults(t *testing.T) {
	otherSize := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		var first, last int64
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last) // behind has looked
		remotestest.SetHeader("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(large())+1))(w, r, next)
	}
	for name, fault := range map[string]remotestest.FaultFunc{
		"429":               remotestest.TooManyRequests(0),
		"429, a second":     remotestest.TooManyRequests(time.Second),
		"503":               remotestest.Error(503, "UNAVAILABLE", "later"),
		"404":               remotestest.Error(404, "BLOB_UNKNOWN", "gone"),
		"416":               remotestest.Error(416, "RANGE", "no"),
		"all":               whole,
		"another part":      remotestest.SetHeader("Content-Range", "bytes 0-4194303/25178169"),
		"no Content-Range":  remotestest.SetHeader("Content-Range", ""),
		"another size":      otherSize,
		"another ETag":      remotestest.SetHeader("Etag", `"another"`),
		"another length":    remotestest.WrongContentLength(-5),
		"short":             remotestest.ShortChunked(100_000),
		"nothing":           remotestest.ShortChunked(0),
		"cut":               remotestest.CutBody(100_000),
		"cut at once":       remotestest.HeaderOnly(),
		"aborted":           remotestest.Abort(),
		"encoded":           remotestest.SetHeader("Content-Encoding", "gzip"),
		"redirected around": remotestest.RedirectTo("/v2/"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, desc := withLarge(t)
			reg.Fault(behind(9<<20), remotestest.Times(1, fault))
			c := eager(t, inPartsOf(t, Options{MaxConnections: 32}, reg.URL()))
			data, size, err := readInParts(t, c, desc, 0)
			if err != nil || size != desc.Size || !bytes.Equal(data, large()) {
				t.Errorf("%d bytes of %d, %v", len(data), size, err)
			}
			if !c.site.places.blobs.TryAcquire(24) || c.memory.Left() != defaultAhead {
				t.Errorf("places are lost, or memory: %d bytes are left", c.memory.Left())
			}
			if err := resolve(soon(t), c); !errdefs.IsNotFound(err) {
				t.Errorf("the upstream is left alone: %v", err)
			}
		})
	}
}

// TestPartFaultsForGood has nothing come behind a part: the error says why, and
// all before it is right.
//
//nolint:paralleltest // see large
func TestPartFaultsForGood(t *testing.T) {
	for name, tc := range map[string]struct {
		fault remotestest.FaultFunc
		kind  error
	}{
		"429":          {remotestest.TooManyRequests(0), errdefs.ErrResourceExhausted},
		"429, an hour": {remotestest.TooManyRequests(time.Hour), errdefs.ErrResourceExhausted},
		"503, an hour": {remotestest.Status(503, http.Header{"Retry-After": {"3600"}}, ""), errdefs.ErrUnavailable},
		"404":          {remotestest.Error(404, "BLOB_UNKNOWN", "gone"), errdefs.ErrNotFound},
		"another part": {remotestest.SetHeader("Content-Range", "bytes 0-4194303/25178169"), errdefs.ErrDataLoss},
		"nothing":      {remotestest.ShortChunked(0), errdefs.ErrUnavailable},
		"cut":          {remotestest.HeaderOnly(), errdefs.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, desc := withLarge(t)
			reg.Fault(behind(9<<20), tc.fault)
			c := eager(t, inPartsOf(t, Options{MaxConnections: 32}, reg.URL()))
			data, _, err := readInParts(t, c, desc, 0)
			failed(t, err, tc.kind)
			if len(data) < 8<<20 || !bytes.Equal(data, large()[:len(data)]) {
				t.Errorf("%d bytes before the error, or wrong ones", len(data))
			}
			if n := len(reg.Requests()); n > 60 {
				t.Errorf("%d requests", n)
			}
			if !c.site.places.blobs.TryAcquire(24) || c.memory.Left() != defaultAhead {
				t.Error("places are lost, or memory")
			}
		})
	}
}

// TestPartsByLink has a registry redirect to a CDN: it is asked once, and the CDN
// for all parts, until the link is refused. The CDN is shown nothing.
//
//nolint:paralleltest // see large
func TestPartsByLink(t *testing.T) {
	for status := range refusals() {
		reg, desc := withLarge(t, remotestest.WithToken())
		cdn, _ := withLarge(t)
		var links, uses atomic.Int32
		reg.Fault(remotestest.Blobs(), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			remotestest.RedirectTo(fmt.Sprintf("%s%s?sig=SECRET%d", cdn.URL(), r.URL.Path, links.Add(1)))(w, r, next)
		})
		cdn.Fault(remotestest.Blobs(), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if uses.Add(1) > 2 && r.URL.Query().Get("sig") == "SECRET1" {
				remotestest.Error(status, "AccessDenied", "request has expired")(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		})
		c := eager(t, inPartsOf(t, Options{}, reg.URL(), cdn.URL()))
		data, size, err := readInParts(t, c, desc, 0)
		if err != nil || size != desc.Size || !bytes.Equal(data, large()) {
			t.Errorf("%d: %d bytes of %d, %v", status, len(data), size, err)
		}
		if n := links.Load(); n < 2 || n > 9 {
			t.Errorf("%d: %d links were asked for, want one, and one for each connection at most when it is refused", status, n)
		}
		if sigs := signatures(t, cdn); len(sigs) < 5 {
			t.Errorf("%d: links used: %v", status, sigs)
		}
		if _, sent := parts(t, cdn); sent != desc.Size {
			t.Errorf("%d: %d bytes were sent, want %d", status, sent, desc.Size)
		}
	}
}

// TestPartsOverHTTP2 has each part on a connection of its own where HTTP/2 would
// have them all on one.
//
//nolint:paralleltest // see large
func TestPartsOverHTTP2(t *testing.T) {
	var mu sync.Mutex
	by := map[string]int{} // protocol's version by the client's address
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		by[r.RemoteAddr] = r.ProtoMajor
		mu.Unlock()
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(large()))
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(s.URL, "https://")
	c := eager(t, inPartsOf(t, Options{Hosts: map[string]Host{host: {CAFile: ca}}}, s.URL))
	desc := ocispec.Descriptor{Digest: digest.FromBytes(large()), Size: int64(len(large()))}
	data, _, err := readInParts(t, c, desc, 0)
	if err != nil || !bytes.Equal(data, large()) {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	mu.Lock()
	defer mu.Unlock()
	versions := map[int]int{}
	for _, v := range by {
		versions[v]++
	}
	if versions[2] != 1 || versions[1] < 2 {
		t.Errorf("%d connections of HTTP/2 and %d of HTTP/1.1, want one and several", versions[2], versions[1])
	}
}

// TestPartsLeavePlaces has few places: parts take those only that are free, and
// leave one to a blob that comes.
//
//nolint:paralleltest // see large
func TestPartsLeavePlaces(t *testing.T) {
	reg, desc := withLarge(t)
	release := make(chan struct{})
	var most, now atomic.Int32
	reg.Fault(behind(9<<20), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		remotestest.Gate(100, release)(w, r, next)
	})
	c := eager(t, inPartsOf(t, Options{MaxConnections: 5}, reg.URL())) // four for blobs
	body, _, err := c.BlobInParts(soon(t), "team/app", desc.Digest, 0, desc.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, ranged.First)); err != nil {
		t.Fatal(err)
	}
	small := reg.PutBlob("team/app", []byte("small"))
	other, _, err := c.Blob(soon(t), "team/app", small.Digest, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(other); string(got) != "small" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	other.Close()
	close(release)
	if rest, err := io.ReadAll(body); err != nil || !bytes.Equal(rest, large()[ranged.First:]) {
		t.Errorf("%d bytes, %v", len(rest), err)
	}
	if n := most.Load(); n > 3 {
		t.Errorf("%d parts at a time, want one place left of four", n)
	}
}

// TestSilentPartsOpenNoBreaker has an upstream that answers one connection only:
// what larder could have done without is no reason to leave it alone.
func TestSilentPartsOpenNoBreaker(t *testing.T) {
	t.Parallel()
	reg, desc := withLarge(t)
	reg.Fault(remotestest.Blobs(), remotestest.Hang())
	c := impatient(t, reg.URL())
	s := &inParts{client: c, purpose: blobPurpose("team/app", desc.Digest), digest: desc.Digest, size: desc.Size}
	_, err := s.Ahead(soon(t), 0, 99)
	if e := failure(t, err, errdefs.ErrUnavailable); !strings.Contains(e.Error(), "no answer in time") || !c.breaker.circuit.IsClosed() {
		t.Errorf("the upstream is left alone, or the error is not silence: %v", e)
	}
	_, err = s.Open(soon(t), 0, 99)
	if failed(t, err, errdefs.ErrUnavailable); c.breaker.circuit.IsClosed() {
		t.Errorf("silence to what is needed opens no breaker: %v", err)
	}
}

// TestPartsEnd cancels while parts are read, and while nobody reads.
//
//nolint:paralleltest // see large
func TestPartsEnd(t *testing.T) {
	for _, reads := range []bool{true, false} {
		reg, desc := withLarge(t)
		reg.Fault(behind(9<<20), remotestest.HangBody(1000))
		c := eager(t, inPartsOf(t, Options{MaxConnections: 32}, reg.URL()))
		ctx, cancel := context.WithCancel(soon(t))
		body, _, err := c.BlobInParts(ctx, "team/app", desc.Digest, 0, desc.Size)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(body, make([]byte, ranged.First+1000)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if reads {
			_, err = io.ReadAll(body)
			if e := failure(t, err, errdefs.ErrUnavailable); !errors.Is(e, context.Canceled) {
				t.Errorf("error is %v, want canceled", e)
			}
		}
		body.Close()
		if !c.site.places.blobs.TryAcquire(24) || c.memory.Left() != defaultAhead {
			t.Error("places are lost, or memory")
		}
	}
}
