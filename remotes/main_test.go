package remotes

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds what must happen by itself, so that a fault of this package
// fails a test and does not hang it.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls for what happens behind the caller's back.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx := soon(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

// setup is what a bench is made of.
type setup struct {
	root      string // of the store; empty: a new one
	upstream  upstream.Options
	freshness Freshness
	names     Names
	hosts     []string // that have the same upstreams as docker.io
	policies  Policies
	companion Companions
	prefetch  Prefetch
	budget    cache.Budget
	log       io.Writer
	disk      cache.Disk       // under the store
	clock     func() time.Time // of the store
}

// withFault has upstreams that do not answer given up soon, if the fault of that
// name is such a one. No other test may: on a busy machine who answers is slow.
func withFault(name string) func(*setup) {
	return func(s *setup) {
		if name == "hang" {
			s.upstream.HeaderTimeout = 500 * time.Millisecond
		}
	}
}

// bench is a Registry on a real store and a real pool. Behind docker.io stand
// the test registries, in their order.
type bench struct {
	*Registry
	t    *testing.T
	root string
}

// newBench makes one. Upstreams that failed are asked again at once: change says
// otherwise.
func newBench(t *testing.T, ups []*remotestest.Registry, change ...func(*setup)) *bench {
	t.Helper()
	s := setup{
		upstream:  upstream.Options{HeaderTimeout: 20 * time.Second, Pause: time.Millisecond},
		freshness: DefaultFreshness(),
		log:       io.Discard,
		clock:     time.Now,
		disk:      cache.OSDisk(),
	}
	for _, c := range change {
		c(&s)
	}
	if s.root == "" {
		s.root = filepath.Join(t.TempDir(), "store")
	}
	route := make([]upstream.Endpoint, 0, len(ups))
	for _, up := range ups {
		ep, err := upstream.ParseEndpoint(up.URL())
		if err != nil {
			t.Fatal(err)
		}
		route = append(route, ep)
	}
	s.upstream.Named = route
	pool, err := upstream.NewPool(s.upstream)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	logger := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	store, err := cache.Open(s.root, cache.WithLogger(logger), cache.WithDisk(s.disk), cache.WithClock(s.clock), cache.WithBudget(s.budget), cache.WithFillPolicy(cache.FillPolicy{
		Stall: 10 * time.Second, Attempts: 2, Pause: time.Millisecond,
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	routes := Routes{}
	if len(route) > 0 {
		byHost := map[string][]upstream.Endpoint{DockerHub: route}
		for _, host := range s.hosts {
			byHost[host] = route
		}
		routes, err = NewRoutes(byHost)
		if err != nil {
			t.Fatal(err)
		}
	}
	return &bench{
		Registry: NewRegistry(Config{
			Store: store, Pool: pool, Names: s.names, Routes: routes, Freshness: s.freshness, Policies: s.policies,
			Companions: s.companion, Prefetch: s.prefetch, Logger: logger,
		}),
		t: t, root: s.root,
	}
}

// one is a bench with one upstream that has img as docker.io/library/app:1.
func one(t *testing.T, img remotestest.Image, change ...func(*setup)) (*bench, *remotestest.Registry) {
	t.Helper()
	up := remotestest.New(t)
	up.PutImage("library/app", "1", img)
	return newBench(t, []*remotestest.Registry{up}, change...), up
}

func withFreshness(f Freshness) func(*setup) { return func(s *setup) { s.freshness = f } }

// withSettings has one rule, docker-hub, with settings.
func withSettings(t *testing.T, settings Settings) func(*setup) {
	t.Helper()
	policies := newPolicies(t, []Rule{{ECRRepositoryPrefix: "docker-hub", UpstreamRegistryURL: "registry-1.docker.io", Settings: settings}})
	return func(s *setup) { s.policies = policies }
}

// newPolicies has rules and templates over no defaults.
func newPolicies(t testing.TB, rules []Rule, templates ...Template) Policies {
	t.Helper()
	all, err := NewRules(rules, false)
	if err != nil {
		t.Fatal(err)
	}
	policies, err := NewPolicies(Policy{}).WithRules(all, templates)
	if err != nil {
		t.Fatal(err)
	}
	return policies
}

func withLog(w io.Writer) func(*setup) { return func(s *setup) { s.log = w } }

// build makes a small image; different seeds share nothing.
func build(seed uint64) remotestest.Image {
	return remotestest.Build(remotestest.ImageSpec{Seed: seed})
}

// app is docker.io/library/app by tag or digest.
func app(t *testing.T, object string) Reference {
	t.Helper()
	return inRepo(t, appRepo(), object)
}

// library is app for another repository beside it.
func library(t *testing.T, name, object string) Reference {
	t.Helper()
	return inRepo(t, Repository{Host: DockerHub, Path: "library/" + name}, object)
}

func inRepo(t *testing.T, repo Repository, object string) Reference {
	t.Helper()
	ref, err := repo.WithObject(object)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// resolve is Resolve that has to succeed, with this outcome.
func (b *bench) resolve(ref Reference, want Outcome) Resolved {
	b.t.Helper()
	res, err := b.Resolve(soon(b.t), ref)
	if err != nil {
		b.t.Fatalf("resolve %s: %v", ref, err)
	}
	if res.Outcome != want {
		b.t.Errorf("resolve %s: outcome %q (%v), want %q", ref, res.Outcome, res.Problem, want)
	}
	return res
}

// change edits a stored tag: that is how these tests turn the clock.
func (b *bench) change(ref Reference, f func(*cache.Tag)) {
	b.t.Helper()
	tag, err := b.Store.Tag(ref.String())
	if err != nil {
		b.t.Fatal(err)
	}
	f(&tag)
	if err := b.Store.PutTag(tag); err != nil {
		b.t.Fatal(err)
	}
}

// expire makes a tag's check due.
func (b *bench) expire(ref Reference) {
	b.t.Helper()
	b.change(ref, func(tag *cache.Tag) {
		tag.Validated = time.Now().Add(-b.Freshness.WindowOf(tag.Name) - time.Second)
		tag.NextCheck = time.Time{}
	})
}

// read reads a whole blob.
func (b *bench) read(repo Repository, dgst digest.Digest) ([]byte, Outcome, error) {
	b.t.Helper()
	ctx := soon(b.t)
	blob, err := b.Blob(ctx, ctx, repo, dgst)
	if err != nil {
		return nil, "", err
	}
	defer blob.Close()
	data, err := io.ReadAll(blob)
	return data, blob.Outcome, err
}

// settle waits until a blob is published. A reader has all of its bytes a moment
// before.
func (b *bench) settle(dgst digest.Digest) {
	b.t.Helper()
	ctx := soon(b.t)
	fill, _, err := b.Store.Fill(ctx, dgst, -1, blobSource{registry: b.Registry, repo: appRepo(), digest: dgst})
	if err == nil {
		err = fill.Wait(ctx)
	}
	if err != nil && !errdefs.IsAlreadyExists(err) {
		b.t.Fatalf("%s is not published: %v", dgst, err)
	}
}

// pin pins a reference.
func (b *bench) pin(ref Reference, reason string) (PinStatus, error) {
	b.t.Helper()
	return b.Pin(soon(b.t), cache.Pin{Name: ref.name(), Reason: reason})
}

// blobFile is where a blob is on disk.
func (b *bench) blobFile(dgst digest.Digest) string {
	return filepath.Join(b.root, "blobs", dgst.Algorithm().String(), dgst.Encoded())
}

// counted runs f and returns how many requests an upstream saw of it.
func counted(up *remotestest.Registry, f func()) int {
	before := len(up.Requests())
	f()
	return len(up.Requests()) - before
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func versioned() specs.Versioned { return specs.Versioned{SchemaVersion: 2} }

// mentions checks an error's text.
func mentions(t *testing.T, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("error %v does not say %q", err, w)
		}
	}
}

// appRepo is docker.io/library/app.
func appRepo() Repository { return Repository{Host: DockerHub, Path: "library/app"} }
