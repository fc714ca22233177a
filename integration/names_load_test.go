package integration

import (
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// A hundred thousand names that do not exist, at night, three thousand else, leave
// no file, and memory within bounds.
//
//nolint:paralleltest // it measures memory
func TestManyUnknownNames(t *testing.T) {
	n := count(t, "LARDER_TEST_NAME_COUNT", 3000)
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	l := b.larder("log.level = \"error\"\n" + noCompanions + dockerHub(upstream.URL()))
	get(t, l.URL+"/v2/library/none/manifests/1?ns=docker.io")
	files, before := storeFiles(t, l), residentMemory(t, l.PID())
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	var next atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				method := []string{http.MethodGet, http.MethodHead}[i%2]
				req, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("%s/v2/no/such%d/manifests/%d?ns=docker.io", l.URL, i, i), nil)
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body) // only the status counts
				resp.Body.Close()
				if resp.StatusCode != http.StatusNotFound {
					t.Errorf("name %d: status %s, want 404", i, resp.Status)
					return
				}
			}
		})
	}
	all.Wait()
	after, grown := storeFiles(t, l), residentMemory(t, l.PID())-before
	t.Logf("%d names: %d files before, %d after; %d KiB more memory", n, files, after, grown>>10)
	if after != files {
		t.Errorf("the store had %d files and folders, has %d", files, after)
	}
	if grown > 64<<20 {
		t.Errorf("%d KiB more memory", grown>>10)
	}
}

// storeFiles counts what is in larder's store, but the snapshot of the index: it
// comes a second after the start.
func storeFiles(t *testing.T, l *parts.Larder) (n int) {
	t.Helper()
	err := filepath.WalkDir(l.Root(), func(path string, _ fs.DirEntry, _ error) error {
		if !strings.HasPrefix(filepath.Base(path), "index.json") {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
