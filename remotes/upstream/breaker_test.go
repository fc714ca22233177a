package upstream

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

const pause = 10 * time.Second

// passes reports whether the breaker lets an exchange with this end through.
func passes(b *breaker, v verdict) bool {
	return !errors.Is(b.do(func() verdict { return v }), circuitbreaker.ErrOpen)
}

// TestBreakerOpensOnFailures needs five failures in a row, or one silence.
func TestBreakerOpensOnFailures(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		before []verdict
		open   bool
	}{
		"nothing":               {nil, false},
		"four failures":         {[]verdict{failing, failing, failing, failing}, false},
		"five failures":         {[]verdict{failing, failing, failing, failing, failing}, true},
		"five, one alive":       {[]verdict{failing, failing, alive, failing, failing, failing}, false},
		"five, one unknown":     {[]verdict{failing, failing, unknown, failing, failing, failing}, true},
		"one silence":           {[]verdict{silent}, true},
		"silence after success": {[]verdict{alive, alive, alive, silent}, true},
		"many callers left":     {[]verdict{unknown, unknown, unknown, unknown, unknown, unknown}, false},
	} {
		b := newBreaker(pause)
		for _, v := range tc.before {
			if !passes(b, v) {
				t.Errorf("%s: open too early", name)
			}
		}
		if open := !passes(b, alive); open != tc.open {
			t.Errorf("%s: open is %t, want %t", name, open, tc.open)
		}
	}
}

// TestBreakerLetsOneThrough waits for the pause's end, in the bubble's time.
func TestBreakerLetsOneThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(pause)
		passes(b, silent)
		<-time.After(pause * 8 / 10)
		if passes(b, alive) {
			t.Error("passes before the pause is over")
		}
		<-time.After(pause * 4 / 10)
		release, done := make(chan verdict), make(chan error, 1)
		go func() { done <- b.do(func() verdict { return <-release }) }()
		synctest.Wait()
		for range 3 {
			if passes(b, alive) {
				t.Error("a second exchange passes beside the first")
			}
		}
		release <- silent
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if passes(b, alive) {
			t.Error("passes although the upstream is silent still")
		}
		<-time.After(pause * 12 / 10)
		probe := passes(b, alive)
		if after := passes(b, alive); !probe || !after {
			t.Error("does not pass after the upstream came back")
		}
		if !passes(b, failing) || !passes(b, alive) {
			t.Error("one failure opens a breaker that had closed")
		}
	})
}

// TestBreakerReturnsPermit ends the one exchange of the half-open breaker
// without a verdict: the next caller must get its permit.
func TestBreakerReturnsPermit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(pause)
		passes(b, silent)
		<-time.After(2 * pause)
		for range 3 {
			if !passes(b, unknown) {
				t.Fatal("the permit of a caller who left is lost")
			}
		}
		func() {
			defer func() { _ = recover() }()
			_ = b.do(func() verdict { panic("exchange") })
		}()
		if !passes(b, alive) {
			t.Error("the permit of a panic is lost")
		}
		if !passes(b, alive) {
			t.Error("the breaker is not closed by success")
		}
	})
}

// TestBreakerLateLeaver leaves an exchange that had begun before the breaker
// opened: it must not give a second permit.
func TestBreakerLateLeaver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(pause)
		start := func() (chan verdict, chan error) {
			release, done := make(chan verdict), make(chan error, 1)
			go func() { done <- b.do(func() verdict { return <-release }) }()
			synctest.Wait()
			return release, done
		}
		early, earlyDone := start()
		passes(b, silent)
		<-time.After(2 * pause)
		probe, probeDone := start()
		early <- unknown
		if err := <-earlyDone; err != nil {
			t.Error(err)
		}
		if passes(b, alive) {
			t.Error("a second exchange passes beside the probe")
		}
		probe <- alive
		if err := <-probeDone; err != nil {
			t.Error(err)
		}
		if !passes(b, alive) {
			t.Error("closed breaker does not pass")
		}
	})
}

// TestSecretOpensNoBreaker: a caller's secret at which an upstream, its token
// service or the connection to it fails keeps nobody else off the upstream.
func TestSecretOpensNoBreaker(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, ok := r.BasicAuth()
		switch {
		case !ok:
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		case user == "odd":
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	srv.EnableHTTP2 = true
	srv.Config.MaxHeaderBytes = 8 << 10 // of which it tells its clients
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	ep := endpoint(t, srv.URL)
	c := newPool(t, Options{Named: []Endpoint{ep}, Hosts: map[string]Host{ep.Host: {CAFile: ca}}, Pause: time.Hour}).Client(ep)
	for _, bad := range []Credential{{Username: "long", Secret: strings.Repeat("x", 14<<10)}, {Username: "odd", Secret: "x"}} {
		for range 2 * failuresToOpen {
			failed(t, c.As(bad).HasManifest(soon(t), "team/app", "v1"), errdefs.ErrUnavailable)
		}
		if err := c.As(Credential{Username: "kim", Secret: "x"}).HasManifest(soon(t), "team/app", "v1"); err != nil {
			t.Errorf("after %s: %v", bad.Username, err)
		}
	}
}
