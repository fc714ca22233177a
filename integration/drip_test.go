package integration

import (
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
)

// An upstream that sends 50 bytes a second is given up after the attempts that the
// configuration allows, once for all who wait, and leaves nothing open.
func TestDripIsGivenUp(t *testing.T) {
	t.Parallel()
	const followers = 20
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/app", noise(100, 3<<20))
	remove := upstream.Fault(remotestest.Blobs(), remotestest.Slow(50))
	l := b.larder(impatient + dockerHub(upstream.URL()))
	base := openFiles(t, l.PID())
	url := blobURL(l.URL, "library/app", desc.Digest)
	c := clients{URL: url, Count: followers, Digest: desc.Digest.Encoded()}.start(t).end()
	if c.Whole+c.Wrong+c.Late > 0 || c.Max > 4*answerLimit {
		t.Errorf("clients: %+v, want all cut or refused", c)
	}
	asked := len(upstream.Requests())
	t.Logf("%d clients held for at most %s, upstream asked %d times", followers, c.Max.Round(1e6), asked)
	if asked > 4 { // two attempts by the configuration, and those who come in between
		t.Errorf("upstream was asked %d times", asked)
	}
	verifyStore(t, l)
	remove()
	eventually(t, "the next pull gets it", func() bool { return get(t, url).whole(desc.Digest) })
	eventually(t, "nothing is left open", func() bool { return openFiles(t, l.PID()) <= base+4 }) // idle connections
}
