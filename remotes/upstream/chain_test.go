package upstream

import (
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
)

// quiet is the log of a server whose clients hang up on purpose.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// TestRandomRedirectsLeakNothing sends blobs through a thousand random chains, half by each scheme, of
// redirects over the registry and foreign hosts. No foreign one is shown anything,
// wherever in the chain it stands. The registry may be shown its own credential
// again, if a chain comes back to it.
//
//nolint:paralleltest // it takes the whole machine from tests that wait for time-outs
func TestRandomRedirectsLeakNothing(t *testing.T) {
	const chains = 500
	for name, opt := range map[string]remotestest.Option{
		"basic": remotestest.WithBasic("alice", secretA), "bearer": remotestest.WithUser("alice", secretA),
	} {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(3, 20))
			reg, img := withImage(t, opt)
			var mu sync.Mutex
			leaks, foreign := 0, 0
			var urls []string
			var chain []int // of the running one: places in urls
			hop := func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				_, text, _ := strings.Cut(r.URL.Path, "/hop/")
				i, err := strconv.Atoi(text)
				if err != nil {
					t.Errorf("path %s: %v", r.URL.Path, err)
					return
				}
				if chain[i] > 0 {
					foreign++
					for _, key := range []string{"Authorization", "Cookie", "Referer", "Proxy-Authorization", "X-Larder-Secret"} {
						if v := r.Header.Get(key); v != "" {
							leaks++
							t.Errorf("chain %v, hop %d: %s arrived: %s", chain, i, key, v)
						}
					}
				}
				if i+1 == len(chain) {
					return
				}
				w.Header().Set("Set-Cookie", "c="+secretA)
				w.Header().Set("Location", fmt.Sprintf("%s/v2/team/app/blobs/hop/%d", urls[chain[i+1]], i+1))
				w.WriteHeader([]int{301, 302, 303, 307, 308}[i%5])
			}
			urls = append(urls, reg.URL())
			for range 3 {
				urls = append(urls, serve(t, hop))
			}
			reg.Fault(remotestest.Not(remotestest.Tokens()), func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				if strings.Contains(r.URL.Path, "/hop/") {
					hop(w, r)
					return
				}
				w.Header().Set("Location", fmt.Sprintf("%s/v2/team/app/blobs/hop/0", urls[chain[0]]))
				w.WriteHeader(http.StatusTemporaryRedirect)
			})
			c := newPool(t, Options{Named: endpoints(t, urls...), Credentials: keys(alice())}).Client(endpoint(t, reg.URL()))
			for range chains {
				mu.Lock()
				chain = nil
				for range 1 + random.IntN(maxRedirects) {
					chain = append(chain, random.IntN(len(urls)))
				}
				mu.Unlock()
				body, _, err := c.Blob(soon(t), "team/app", layer(img).Descriptor.Digest, 0)
				if err == nil {
					body.Close()
				}
			}
			t.Logf("%s: %d chains, %d requests at foreign hosts, %d leaks", name, chains, foreign, leaks)
			if foreign < chains {
				t.Errorf("%d requests at foreign hosts: the test proves nothing", foreign)
			}
		})
	}
}
