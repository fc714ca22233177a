package integration

import (
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// ecrSite is an ECR look-alike, its AWS, and the proxy on the way there.
type ecrSite struct {
	*parts.ECR
	aws      *parts.AWS
	proxy    *parts.Proxy
	registry *parts.Registry // behind the look-alike, for whoever knows
	ca       *parts.CA
}

// ecr starts one; principal, if any, is the only one who may pull.
func (b *bench) ecr(principal string) *ecrSite {
	b.t.Helper()
	s := &ecrSite{aws: b.aws(), ca: b.ca("aws")}
	var err error
	if s.registry, err = parts.StartRegistry(b.t.Context(), b.bin, filepath.Join(b.dir, "ecr")); err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(s.registry.Close)
	s.ECR, err = parts.StartECR(parts.ECROptions{CA: s.ca, Backend: s.registry.URL, AWS: s.aws, Principal: principal})
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(s.Close)
	if s.proxy, err = parts.StartProxy(s.Routes()); err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(s.proxy.Close)
	b.logOnFailure("ECR look-alike", func() string { return fmt.Sprintf("%+v, proxy asked for %v", s.Count(), s.proxy.Targets()) })
	return s
}

func (s *ecrSite) push(t *testing.T, repository, tag string, img remotestest.Image) {
	t.Helper()
	if err := remotestest.Push(t.Context(), s.registry.URL, repository, tag, img); err != nil {
		t.Fatal(err)
	}
}

// config has larder get tokens with its own AWS credentials.
func (s *ecrSite) config() string { return "[credentials]\necr = true\n" + s.hosts() }

// hosts has larder believe the certificates of the look-alike.
func (s *ecrSite) hosts() string {
	return hostKeys(parts.ECRHost, "ca_file", s.ca.File) + hostKeys(parts.ECRLayerHost, "ca_file", s.ca.File)
}

// env is the environment on a machine with an access key.
func (s *ecrSite) env() []string { return append(s.proxy.Env(), s.aws.Env()...) }

// check fails if a credential went to the bucket, or a request elsewhere.
func (s *ecrSite) check(t *testing.T) {
	t.Helper()
	if n := s.Count().Leaked; n != 0 {
		t.Errorf("the bucket was shown a credential %d times", n)
	}
	for _, target := range s.proxy.Targets() {
		if _, ok := s.Routes()[target]; !ok {
			t.Errorf("larder asked the proxy for %s", target)
		}
	}
	if refused := s.aws.Refused(); len(refused) != 0 {
		t.Errorf("AWS did not believe: %q", refused)
	}
}

const ecrImage = parts.ECRHost + "/team/app:1"

// manifestAt is where the mirror at base serves a manifest of an ECR repository.
func manifestAt(base, repository, reference string) string {
	return fmt.Sprintf("%s/v2/%s/manifests/%s?ns=%s", base, repository, reference, parts.ECRHost)
}

// An image of private ECR, under its own name, for containerd and the kubelet,
// neither of which has AWS credentials. One token serves all of it.
func TestECRPull(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]func(*ecrSite) []string{
		"access key":    (*ecrSite).env,
		"instance role": func(s *ecrSite) []string { return append(s.proxy.Env(), s.aws.InstanceEnv()...) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder", "containerd", "ctr", "registry")
			principal := ""
			if name == "instance role" {
				principal = parts.InstanceRole
			}
			s := b.ecr(principal)
			s.push(t, "team/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 630, Layers: []int64{300_000, 10_000}}))
			s.push(t, "team/other", "1", remotestest.Build(remotestest.ImageSpec{Seed: 631}))
			s.push(t, "team/third", "1", remotestest.Build(remotestest.ImageSpec{Seed: 632}))
			l := b.larder(s.config(), env(s)...)
			certs := b.certs(l)
			c := b.containerd(certs, false)
			ctr(t, c, pullArgs(ecrImage, certs, false)...)
			criPull(t, imageService(t, c), parts.ECRHost+"/team/other:1")
			run(t, l, "pull", parts.ECRHost+"/team/third:1")

			if got := s.Count(); got.Layers == 0 || got.Refused != 0 || got.Expired != 0 {
				t.Errorf("ECR counted %+v, want layers from the bucket and no refusal", got)
			}
			if n := s.aws.Count(parts.OpGetAuthorizationToken); n != 1 {
				t.Errorf("three images cost %d tokens, want 1", n)
			}
			s.check(t)
		})
	}
}

// A token that ECR takes back before its time: the pulls that see it renew it,
// once for all, and succeed.
func TestECRTokenRevoked(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "registry")
	s := b.ecr("")
	const images = 20
	var imgs []remotestest.Image
	for i := range images {
		imgs = append(imgs, remotestest.Build(remotestest.ImageSpec{Seed: 640 + uint64(i)}))
		s.push(t, fmt.Sprintf("team/app%d", i), "1", imgs[i])
	}
	s.push(t, "team/app", "1", imgs[0])
	l := b.larder(s.config(), s.env()...)
	run(t, l, "pull", ecrImage)
	s.aws.RevokeTokens()
	var all sync.WaitGroup
	for i := range images {
		all.Go(func() {
			a, err := fetch(t.Context(), http.MethodGet, manifestAt(l.URL, fmt.Sprintf("team/app%d", i), "1"))
			if err != nil || !a.whole(imgs[i].Root.Digest) {
				t.Errorf("pull %d after the token was revoked: %v, %v", i, a, err)
			}
		})
	}
	all.Wait()
	if n := s.aws.Count(parts.OpGetAuthorizationToken); n != 2 {
		t.Errorf("GetAuthorizationToken was asked %d times, want 2", n)
	}
	if s.Count().Expired == 0 {
		t.Error("ECR saw no revoked token, so this test proves nothing")
	}
	s.check(t)
}

// A token near its planted expiry is renewed ahead of time. If AWS does not give a
// new one, the old one is used on, as long as ECR takes it.
func TestECRTokenRenewalFails(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]parts.AWSFault{"denied": parts.AWSAccessDenied, "down": parts.AWSServerError} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder", "registry")
			s := b.ecr("")
			img := remotestest.Build(remotestest.ImageSpec{Seed: 660})
			s.push(t, "team/app", "1", img)
			// A minute is the shortest life that larder takes for true, and half of
			// it what it waits.
			s.aws.SetTokenLifetime(time.Minute)
			l := b.larder("[freshness]\nwindow = \"1ns\"\n"+s.config(), s.env()...)
			url := manifestAt(l.URL, "team/app", "1")
			if a := get(t, url); !a.whole(img.Root.Digest) {
				t.Fatalf("first pull: %v", a)
			}
			mend := s.aws.Fail(parts.OpGetAuthorizationToken, fault)
			eventually(t, "the token is to be renewed", func() bool {
				if a := get(t, url); !a.whole(img.Root.Digest) {
					t.Errorf("with the token that is there: %v", a)
				}
				return s.aws.Count(parts.OpGetAuthorizationToken) > 1
			})
			accepted := s.Count().Accepted
			for range 20 {
				if a := get(t, url); !a.whole(img.Root.Digest) || a.cache() == "stale" {
					t.Errorf("renewal failed: got %v, X-Larder-Cache %q, want a check with the old token", a, a.cache())
				}
			}
			if got := s.Count(); got.Accepted == accepted || got.Expired+got.Refused != 0 {
				t.Errorf("ECR counted %+v, before that %d accepted", got, accepted)
			}
			mend()
			s.check(t)
		})
	}
}

// While AWS gives no token, what is stored is served, and what is not fails in
// time with a word on the reason.
func TestECRWithoutAWS(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]parts.AWSFault{
		"throttled": parts.AWSThrottle, "down": parts.AWSServerError, "denied": parts.AWSAccessDenied, "hangs": parts.AWSHang,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder", "registry")
			s := b.ecr("")
			img := remotestest.Build(remotestest.ImageSpec{Seed: 670})
			s.push(t, "team/app", "1", img)
			l := b.larder(impatient+"[freshness]\nwindow = \"1ns\"\n"+s.config(), s.env()...)
			run(t, l, "pull", ecrImage)
			s.aws.RevokeTokens()
			s.aws.Fail(parts.OpGetAuthorizationToken, fault)
			if a := get(t, manifestAt(l.URL, "team/app", "1")); !a.whole(img.Root.Digest) || a.took > answerLimit {
				t.Errorf("stored image: got %v after %v", a, a.took)
			}
			a := get(t, manifestAt(l.URL, "team/absent", "1"))
			if a.status < 400 || a.status == http.StatusTooManyRequests || a.took > answerLimit {
				t.Errorf("image that is not stored: got %v after %v, want an error that sends containerd on", a, a.took)
			}
		})
	}
}

// A rule with custom_role_arn: the registry takes only that role's tokens.
func TestECRCustomRole(t *testing.T) {
	t.Parallel()
	const role = "arn:aws:iam::" + parts.AWSAccount + ":role/puller"
	b := newBench(t, "larder", "containerd", "ctr", "registry")
	s := b.ecr(role)
	s.aws.AllowRole(role)
	s.push(t, "team/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 680}))
	l := b.larder(s.hosts()+privateRule(parts.ECRHost, "custom_role_arn", role), s.env()...)
	certs := b.certs(l)
	c := b.containerd(certs, false)
	ctr(t, c, pullArgs("localhost/priv/team/app:1", certs, false)...)
	if s.aws.Count(parts.OpAssumeRole) != 1 || s.aws.Count(parts.OpGetAuthorizationToken) != 1 {
		t.Errorf("AWS was asked for %d roles and %d tokens, want 1 and 1",
			s.aws.Count(parts.OpAssumeRole), s.aws.Count(parts.OpGetAuthorizationToken))
	}
	s.check(t)
}

// Docker Hub's images come from the account's ECR cache, and from Docker Hub when
// ECR has not got a digest or is down. ECR's credential stays with ECR.
func TestECRBeforeOrigin(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "containerd", "ctr", "registry")
	s := b.ecr("")
	origin, meter := b.registry()
	cached := remotestest.Build(remotestest.ImageSpec{Seed: 690, Layers: []int64{100_000}})
	fresh := remotestest.Build(remotestest.ImageSpec{Seed: 691})
	s.push(t, "docker-hub/library/app", "1", cached)
	for tag, img := range map[string]remotestest.Image{"1": cached, "2": fresh} {
		if err := remotestest.Push(t.Context(), origin.URL, "library/app", tag, img); err != nil {
			t.Fatal(err)
		}
	}
	routes := fmt.Sprintf("[[routes]]\nregistry = \"docker.io\"\nupstreams = [%q, %q]\n", parts.ECRHost+"/docker-hub", meter.URL())
	l := b.larder(noCompanions+s.config()+routes, s.env()...)
	certs := b.certs(l)
	c := b.containerd(certs, false)

	ctr(t, c, pullArgs("docker.io/library/app:1", certs, false)...)
	if n := meter.Total().Requests; n != 0 || s.Count().Layers == 0 {
		t.Errorf("what ECR has: the origin saw %d requests, ECR counted %+v", n, s.Count())
	}
	byDigest := "docker.io/library/app@" + fresh.Root.Digest.String()
	ctr(t, c, pullArgs(byDigest, certs, false)...)
	if meter.Total().Requests == 0 {
		t.Error("what ECR has not: the origin saw no request")
	}
	for _, e := range meter.Exchanges() {
		if e.Authorization {
			t.Errorf("%s %s showed the origin a credential", e.Method, e.Path)
		}
	}
	s.check(t)
}
