package integration

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// Not parallel: it measures memory under a load that uses the whole machine.
//
//nolint:paralleltest // see above
func TestFiftyClientsOneColdBlob(t *testing.T) {
	const (
		clients = 50
		size    = 200 << 20
		limit   = 100 << 20
	)
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/big", noise(40, size))
	// The body is held after 4 MiB until all clients have their header:
	// so all of them are there while the blob is cold.
	release := make(chan struct{})
	upstream.Fault(remotestest.And(remotestest.Blobs(), remotestest.Method(http.MethodGet)), remotestest.Gate(4<<20, release))
	l := b.larder(dockerHub(upstream.URL()))

	var joined, done sync.WaitGroup
	joined.Add(clients)
	digests := make([]digest.Digest, clients)
	errs := make([]error, clients)
	for i := range clients {
		done.Go(func() {
			digests[i], errs[i] = pullJoined(t.Context(), blobURL(l.URL, "library/big", desc.Digest), joined.Done)
		})
	}
	joined.Wait()
	close(release)
	done.Wait()
	for i := range clients {
		if errs[i] != nil || digests[i] != desc.Digest {
			t.Errorf("client %d: got %s, %v; want %s", i, digests[i], errs[i], desc.Digest)
		}
	}
	if n := upstream.Count(http.MethodGet, "/blobs/"); n != 1 {
		t.Errorf("upstream saw %d GETs of the blob, want 1", n)
	}
	peak := peakMemory(t, l.PID())
	t.Logf("larder's peak resident memory: %d MiB", peak>>20)
	if peak >= limit {
		t.Errorf("larder's peak resident memory: got %d MiB, want under %d MiB", peak>>20, limit>>20)
	}
}

// pullJoined reads a blob and calls joined once it has the header, or never will.
func pullJoined(ctx context.Context, url string, joined func()) (digest.Digest, error) {
	once := sync.OnceFunc(joined)
	defer once()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	once()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s", resp.Status)
	}
	h := sha256.New()
	if _, err := io.Copy(h, resp.Body); err != nil {
		return "", err
	}
	return digest.NewDigest(digest.SHA256, h), nil
}

func TestClientLeavesHalfWay(t *testing.T) {
	t.Parallel()
	const size, gate = 8 << 20, 4 << 20
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/big", noise(41, size))
	release := make(chan struct{})
	upstream.Fault(remotestest.Blobs(), remotestest.Gate(gate, release))
	l := b.larder(dockerHub(upstream.URL()))
	url := blobURL(l.URL, "library/big", desc.Digest)

	readAndLeave(t, url, gate/2)
	close(release)
	eventually(t, "the fill goes on without its client and is published", func() bool {
		return published(l, desc.Digest)
	})
	eventually(t, "the whole blob is a hit", func() bool {
		a := get(t, url)
		return a.whole(desc.Digest) && a.cache() == "hit"
	})
	if n := upstream.Count(http.MethodGet, "/blobs/"); n != 1 {
		t.Errorf("upstream saw %d GETs, want 1", n)
	}
}

// readAndLeave reads n bytes of a body and then drops the connection.
func readAndLeave(t *testing.T, url string, n int64) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, n); err != nil {
		t.Fatalf("status %s: read %d bytes: %v", resp.Status, n, err)
	}
}

func TestKillHalfWayThenResume(t *testing.T) {
	t.Parallel()
	const size, gate = 16 << 20, 8 << 20
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/big", noise(42, size))
	remove := upstream.Fault(remotestest.Blobs(), remotestest.HangBody(gate))
	l := b.larder(dockerHub(upstream.URL()))
	url := blobURL(l.URL, "library/big", desc.Digest)

	// What the client has read, larder had written.
	readAndLeave(t, url, gate/2)
	if err := l.Kill(); err != nil {
		t.Fatal(err)
	}
	remove()
	if published(l, desc.Digest) {
		t.Fatal("half a blob is published")
	}
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := len(upstream.Requests())
	if a := get(t, url); !a.whole(desc.Digest) {
		t.Fatalf("after kill -9 and a new start: got %v, want the whole blob", a)
	}
	var offset, sent int64
	for _, r := range upstream.Requests()[before:] {
		if m := regexp.MustCompile(`^bytes=(\d+)-`).FindStringSubmatch(r.Header.Get("Range")); m != nil {
			offset, _ = strconv.ParseInt(m[1], 10, 64)
		}
		if r.Method == http.MethodGet {
			sent += r.Bytes
		}
	}
	if offset < gate/2 || sent > size-offset {
		t.Errorf("resumed at byte %d and fetched %d: want at least %d, and only the rest", offset, sent, gate/2)
	}
}

// Bytes of an ingest that went bad while larder was down must not survive.
func TestKillThenDamagedIngest(t *testing.T) {
	t.Parallel()
	const size, gate = 4 << 20, 2 << 20
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/big", noise(43, size))
	remove := upstream.Fault(remotestest.Blobs(), remotestest.HangBody(gate))
	l := b.larder(dockerHub(upstream.URL()))
	url := blobURL(l.URL, "library/big", desc.Digest)
	readAndLeave(t, url, gate/2)
	if err := l.Kill(); err != nil {
		t.Fatal(err)
	}
	remove()
	ingests, err := filepath.Glob(filepath.Join(l.Root(), "ingest", "*", "data"))
	if err != nil || len(ingests) != 1 {
		t.Fatalf("ingests after the crash: got %v, %v, want one", ingests, err)
	}
	flipByte(t, ingests[0], 1000)
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := get(t, url); a.bodyErr == nil && a.status == http.StatusOK && a.digest != desc.Digest {
		t.Fatalf("damaged ingest: a wrong body ended cleanly: %v", a)
	}
	eventually(t, "the damaged ingest is thrown away and the blob fetched anew", func() bool {
		a := get(t, url)
		return a.whole(desc.Digest)
	})
}

func flipByte(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	one := make([]byte, 1)
	if _, err := f.ReadAt(one, at); err != nil {
		t.Fatal(err)
	}
	one[0] = ^one[0]
	if _, err := f.WriteAt(one, at); err != nil {
		t.Fatal(err)
	}
}

// published tells whether the blob is in larder's store as a blob.
func published(l *parts.Larder, dgst digest.Digest) bool {
	_, err := os.Stat(filepath.Join(l.Root(), "blobs", dgst.Algorithm().String(), dgst.Encoded()))
	return err == nil
}

// noise is n bytes that do not compress, the same for the same seed.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// peakMemory is the largest resident size that the process ever had, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmHWM in\n%s", status)
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
