package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// answer is what a client of the mirror saw. A body may be large: only its
// digest, its size and its start are kept.
type answer struct {
	status  int
	header  http.Header
	digest  digest.Digest
	size    int64
	start   string
	bodyErr error         // of reading the body; nil means that it ended cleanly
	took    time.Duration // until the header
}

func (a answer) String() string {
	if !utf8.ValidString(a.start) {
		a.start = "binary"
	}
	return fmt.Sprintf("status %d, %d bytes, body error %v, %q", a.status, a.size, a.bodyErr, a.start)
}

// whole tells whether the client has exactly the bytes it asked for.
func (a answer) whole(dgst digest.Digest) bool {
	return a.status == http.StatusOK && a.bodyErr == nil && a.digest == dgst
}

// cache is larder's word on where the bytes came from.
func (a answer) cache() string { return a.header.Get("X-Larder-Cache") }

// fetch makes one request on a connection of its own. header holds keys and
// values in turn. An error means that there was no answer at all.
func fetch(ctx context.Context, method, url string, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	begun := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header, took: time.Since(begun)}
	hash, start := digest.SHA256.Digester(), &prefix{}
	a.size, a.bodyErr = io.Copy(io.MultiWriter(hash.Hash(), start), resp.Body)
	a.digest, a.start = hash.Digest(), string(start.kept)
	return a, nil
}

// get is fetch of a URL that has to answer.
func get(t *testing.T, url string, header ...string) answer {
	t.Helper()
	a, err := fetch(t.Context(), http.MethodGet, url, header...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// prefix keeps the first bytes written to it.
type prefix struct{ kept []byte }

func (p *prefix) Write(b []byte) (int, error) {
	p.kept = append(p.kept, b[:min(len(b), 300-len(p.kept))]...)
	return len(b), nil
}

// blobURL is where the mirror at base serves a blob of a Docker Hub repository.
func blobURL(base, repo string, dgst digest.Digest) string {
	return fmt.Sprintf("%s/v2/%s/blobs/%s?ns=docker.io", base, repo, dgst)
}

// manifestURL is where the mirror at base serves a manifest of a Docker Hub
// repository.
func manifestURL(base, repo, reference string) string {
	return fmt.Sprintf("%s/v2/%s/manifests/%s?ns=docker.io", base, repo, reference)
}
