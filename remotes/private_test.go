package remotes

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// privateBench is a bench with one upstream behind three registry hosts: two
// private ones and docker.io. In the repositories of the private ones each
// user has the right password "right" and may be let in or not.
type privateBench struct {
	*bench
	up *remotestest.Registry
}

// The repositories of a privateBench: one at each registry host.
func secretA() Repository { return Repository{Host: "a.example", Path: "team/a"} }
func secretB() Repository { return Repository{Host: "b.example", Path: "team/b"} }
func publicC() Repository { return Repository{Host: DockerHub, Path: "library/c"} }

// withPrivate makes the repositories of these hosts private.
func withPrivate(t *testing.T, hosts ...string) Policies {
	t.Helper()
	var rules []Rule
	for i, host := range hosts {
		rules = append(rules, Rule{
			ECRRepositoryPrefix: fmt.Sprintf("private-%d", i), UpstreamRegistryURL: host, Settings: Settings{Private: PrivateVerify},
		})
	}
	return newPolicies(t, rules)
}

func newPrivateBench(t *testing.T, change ...func(*setup)) privateBench {
	t.Helper()
	up := remotestest.New(t)
	change = append([]func(*setup){func(s *setup) {
		s.hosts = []string{"a.example", "b.example"}
		s.policies = withPrivate(t, "a.example", "b.example")
	}}, change...)
	for _, repo := range []Repository{secretA(), secretB()} {
		up.Fault(remotestest.Repo(repo.Path), remotestest.RequireBasic(func(user, password string) bool {
			return strings.HasSuffix(user, repo.Path) && password == "right"
		}))
	}
	return privateBench{bench: newBench(t, []*remotestest.Registry{up}, change...), up: up}
}

// kim is a user of one repository.
func kim(repo Repository, password string) Credential {
	return Credential{Username: "kim of " + repo.Path, Secret: password}
}

// admitted is the context of a client whom upstream accepts by a manifest.
func (b privateBench) admitted(repo Repository, manifest string) context.Context {
	b.t.Helper()
	ctx, err := b.Admit(soon(b.t), repo, manifest, kim(repo, "right"))
	if err != nil {
		b.t.Fatalf("admit to %s: %v", repo, err)
	}
	return ctx
}

// bring has an image stored for a repository: its manifest and its layer.
func (b privateBench) bring(ctx context.Context, repo Repository, img remotestest.Image) {
	b.t.Helper()
	if _, err := b.Manifest(ctx, Reference{Repository: repo, Tag: "1"}); err != nil {
		b.t.Fatal(err)
	}
	layer := img.Blobs[0]
	if _, err := b.readAs(ctx, repo, layer.Descriptor.Digest); err != nil {
		b.t.Fatal(err)
	}
	b.settle(layer.Descriptor.Digest)
}

// readAs reads a whole blob for the caller in ctx.
func (b privateBench) readAs(ctx context.Context, repo Repository, dgst digest.Digest) (n int64, _ error) {
	b.t.Helper()
	blob, err := b.Blob(ctx, ctx, repo, dgst)
	if err != nil {
		return 0, err
	}
	defer blob.Close()
	buf := make([]byte, 64<<10)
	for {
		m, err := blob.Read(buf)
		n += int64(m)
		if err != nil {
			return n, ignoreEOF(err)
		}
	}
}

// sent are the credentials that upstream saw in requests for a repository.
func (b privateBench) sent(repo Repository) map[string]bool {
	b.t.Helper()
	all := map[string]bool{}
	for _, r := range b.up.Requests() {
		if !strings.HasPrefix(r.Path, "/v2/"+repo.Path+"/") {
			continue
		}
		user, password, ok := (&http.Request{Header: r.Header}).BasicAuth()
		if ok {
			all[user+":"+password] = true
		}
	}
	return all
}
