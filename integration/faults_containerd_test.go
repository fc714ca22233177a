package integration

import (
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
)

// closedHost is a registry host that nothing listens on: when larder cannot
// serve, containerd's next step, the registry itself, fails at once and leaves
// the machine alone.
const closedHost = "127.0.0.1:1"

// What faults do to a real containerd behind larder: the pull may fail, but it
// never brings wrong bytes, and when the fault is gone the same containerd pulls
// the same image.
func TestFaultsUnderContainerd(t *testing.T) {
	t.Parallel()
	const small, large = 300_000, 4 << 20
	cases := map[string]struct {
		size  int64
		fault remotestest.FaultFunc
	}{
		"wrong bytes":        {small, remotestest.WrongBytes(1000)},
		"wrong bytes, large": {large, remotestest.WrongBytes(1000)},
		"short, clean end":   {large, remotestest.ShortBody(large / 2)},
		"cut":                {large, remotestest.CutBody(large / 2)},
		"hang in the body":   {large, remotestest.HangBody(large / 2)},
		"429":                {small, remotestest.TooManyRequests(0)},
		"500":                {small, remotestest.Error(500, "UNKNOWN", "down")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder", "containerd", "ctr")
			upstream := remotestest.New(t)
			img := remotestest.Build(remotestest.ImageSpec{Seed: 60, Layers: []int64{tc.size}})
			upstream.PutImage("library/app", "1", img)
			l := b.larder(impatient + routeFor(closedHost, upstream.URL()))
			certs := b.certs(l)
			c := b.containerd(certs, false)
			pull := pullArgs(closedHost+"/library/app:1", certs, false)

			remove := upstream.Fault(remotestest.Digest(largest(img).Digest), tc.fault)
			_, err := c.Ctr(t.Context(), pull...)
			t.Logf("during the fault: %v", err)
			verifyStore(t, l)
			remove()
			eventually(t, "the same containerd pulls the image after the fault", func() bool {
				_, err := c.Ctr(t.Context(), pull...)
				if err != nil {
					t.Logf("after the fault: %v", err)
				}
				return err == nil
			})
		})
	}
}

// routeFor is config that puts upstream behind a registry host.
func routeFor(registry, upstream string) string {
	return "[[routes]]\nregistry = \"" + registry + "\"\nupstreams = [\"" + upstream + "\"]\n"
}
