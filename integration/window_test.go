package integration

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
)

// Every pod start on a node is one HEAD by tag. Inside the window ten thousand of
// them ask upstream nothing, neither for the tag nor for a token.
func TestTenThousandPullsAskNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "registry")
	img := remotestest.Build(remotestest.ImageSpec{Seed: 604})
	r := b.tokenRegistry(map[string]remotestest.Image{"team/app:1": img})
	file := b.write("secret.json", secretText(t, puller, pullerPassword))
	l := b.larder(noCompanions + trustTokens(r) + privateRule(r.Host(), "credential_file", file))
	url := l.URL + "/v2/team/app/manifests/1?ns=" + r.Host()
	if a := get(t, url); !a.whole(img.Root.Digest) {
		t.Fatalf("first pull: %v", a)
	}
	before, tokens := r.Total(), r.Tokens.Count()
	if before.Requests == 0 || tokens.User == 0 {
		t.Fatalf("first pull: upstream saw %+v and gave %+v", before, tokens)
	}

	const pulls, workers = 10_000, 8
	tr := &http.Transport{MaxIdleConnsPerHost: workers}
	defer tr.CloseIdleConnections()
	var all sync.WaitGroup
	errs := make(chan error, workers)
	for range workers {
		all.Go(func() {
			for range pulls / workers {
				if err := headHit(t, tr, url, img.Root.Digest.String()); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if got := r.Total().Sub(before); got.Requests != 0 {
		t.Errorf("%d pulls: upstream saw %d requests, want 0", pulls, got.Requests)
	}
	if got := r.Tokens.Count(); got != tokens {
		t.Errorf("%d pulls: token service went from %+v to %+v", pulls, tokens, got)
	}
}

// headHit makes one HEAD, which has to be answered from the store.
func headHit(t *testing.T, tr *http.Transport, url, digest string) error {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, url, nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if got := resp.Header.Get("X-Larder-Cache"); resp.StatusCode != http.StatusOK || got != "hit" || resp.Header.Get("Docker-Content-Digest") != digest {
		return fmt.Errorf("HEAD: %s, X-Larder-Cache %s, digest %s", resp.Status, strconv.Quote(got), resp.Header.Get("Docker-Content-Digest"))
	}
	return nil
}
