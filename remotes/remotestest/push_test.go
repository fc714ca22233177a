package remotestest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// receiver takes uploads by the distribution spec and puts them into a
// Registry, which answers the reads.
type receiver struct {
	to   *Registry
	mu   sync.Mutex // guards puts
	puts []string   // paths in order
}

func (rc *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch path := strings.TrimPrefix(req.URL.Path, "/v2/r/"); req.Method {
	case http.MethodPost:
		w.Header().Set("Location", "/v2/r/blobs/uploads/1?_state=s") // relative, with a query
		w.WriteHeader(http.StatusAccepted)
	case http.MethodPut:
		b, err := io.ReadAll(req.Body)
		want := digest.Digest(req.URL.Query().Get("digest"))
		ref, manifest := strings.CutPrefix(path, "manifests/")
		switch {
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		case manifest && strings.Contains(ref, ":"):
			rc.to.PutManifest("r", "", req.Header.Get("Content-Type"), b)
		case manifest:
			rc.to.PutManifest("r", ref, req.Header.Get("Content-Type"), b)
		case req.URL.Query().Get("_state") != "s" || digest.FromBytes(b) != want:
			http.Error(w, "DIGEST_INVALID", http.StatusBadRequest)
			return
		default:
			rc.to.PutBlob("r", b)
		}
		rc.mu.Lock()
		rc.puts = append(rc.puts, path)
		rc.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
	default:
		rc.to.serve(w, req)
	}
}

func TestPush(t *testing.T) {
	t.Parallel()
	rc := &receiver{to: New(t)}
	s := httptest.NewServer(rc)
	t.Cleanup(s.Close)
	img := Build(ImageSpec{Seed: 1, Layers: []int64{100, 200000}, Platforms: []string{"linux/amd64", "linux/arm64"}})
	rc.to.PutBlob("r", img.Blobs[0].Data)
	if err := Push(t.Context(), s.URL, "r", "v1", img); err != nil {
		t.Fatal(err)
	}
	var want []string
	for range img.Blobs[1:] { // the first was there
		want = append(want, "blobs/uploads/1")
	}
	for _, m := range img.Manifests[:2] {
		want = append(want, fmt.Sprintf("manifests/%s", m.Descriptor.Digest))
	}
	if want = append(want, "manifests/v1"); !slices.Equal(rc.puts, want) {
		t.Errorf("got %v, want %v", rc.puts, want)
	}
	for _, d := range img.Descriptors() {
		where := "/v2/r/blobs/"
		if slices.ContainsFunc(img.Manifests, func(m Blob) bool { return m.Descriptor.Digest == d.Digest }) {
			where = "/v2/r/manifests/"
		}
		if a := ask(t, "GET", rc.to.URL()+where+d.Digest.String()); digest.FromBytes(a.body) != d.Digest {
			t.Errorf("%s: got %d", d.Digest, a.status)
		}
	}
}

func TestPushTellsWhatFailed(t *testing.T) {
	t.Parallel()
	r := New(t) // takes no uploads
	img := Build(ImageSpec{})
	err := Push(t.Context(), r.URL(), "r", "v1", img)
	if !errdefs.IsUnknown(err) || !strings.Contains(err.Error(), "POST: got 405") || !strings.Contains(err.Error(), img.Blobs[0].Descriptor.Digest.String()) {
		t.Errorf("got %v", err)
	}
	r.Stop()
	if err := Push(t.Context(), r.URL(), "r", "v1", img); err == nil {
		t.Error("pushed to nobody")
	}
}
