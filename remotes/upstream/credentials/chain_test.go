package credentials

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

// All sources know the host; each that is taken away shows the next.
func TestOrderOfSources(t *testing.T) {
	t.Parallel()
	cloud := newStandIn()
	secret := write(t, "secret.json", secretText("file"))
	docker := write(t, "config.json", `{"auths":{"`+testECR+`":{"auth":"`+basic("docker")+`"}}}`)
	kube, _ := kubeletOptions(t, testPlugin{name: "p", match: "*.dkr.ecr.*.amazonaws.com", answer: answerOf("Image", "", map[string]string{testECR: "kubelet"})})
	all := Options{
		Rules: []Rule{
			{Host: testECR, Prefix: "file", File: secret},
			{Host: testECR, Prefix: "arn", ARN: testARN},
			{Host: testECR, Prefix: "role", RoleARN: testRole},
		},
		DockerConfig: docker, KubeletConfig: kube.KubeletConfig, KubeletBinDir: kube.KubeletBinDir, ECR: true, AWS: cloud.config,
	}
	c, _ := newTest(t, all)
	want(t, c, testECR, "file/app", user("file"))
	want(t, c, testECR, "arn/app", user("manager"))
	want(t, c, testECR, "role/app", user("AWS3"))
	want(t, c, testECR, "free/app", user("docker"))
	all.DockerConfig = ""
	c, _ = newTest(t, all)
	want(t, c, testECR, "free/app", user("kubelet"))
	want(t, c, testECR, "file/app", user("file"))
	all.KubeletConfig, all.KubeletBinDir = "", ""
	c, _ = newTest(t, all)
	want(t, c, testECR, "free/app", user("AWS4"))
	all.ECR = false
	c, _ = newTest(t, all)
	want(t, c, testECR, "free/app", upstream.Credential{})
}

// An implicit source that fails is passed over for a later one, and told of;
// where no later one knows the host, its failure is the answer.
func TestFailingSourceIsPassedOver(t *testing.T) {
	t.Parallel()
	docker := write(t, "config.json", `{"credHelpers":{"`+testECR+`":"fail","quay.io":"fail"}}`)
	c, l := newTest(t, Options{DockerConfig: docker, ECR: true, AWS: newStandIn().config})
	for range 3 {
		want(t, c, testECR, "team/app", user("AWS1"))
	}
	if n := strings.Count(l.String(), "the next one is used"); n != 1 {
		t.Errorf("told %d times, want once:\n%s", n, l)
	}
	fails(t, c, errdefs.ErrUnavailable, "quay.io", "team/app", "credential helper for quay.io", "docker-credential-fail")
	want(t, c, "ghcr.io", "team/app", upstream.Credential{})
}

func TestRefuseAsksAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cloud := newStandIn()
		c, _ := newTest(t, Options{ECR: true, AWS: cloud.config})
		want(t, c, testECR, "team/app", user("AWS1"))
		c.Refuse(testECR, "team/app", user("other")) // not the one that was given
		c.Refuse(testECR, "team/never", user("AWS1"))
		c.Refuse("quay.io", "team/app", user("AWS1"))
		c.Refuse(testECR, "team/app", upstream.Credential{})
		c.Refuse("no host", "team/app", user("AWS1"))
		want(t, c, testECR, "team/app", user("AWS1"))
		c.Refuse(testECR, "team/app", user("AWS1"))
		want(t, c, testECR, "team/app", user("AWS2"))
		c.Refuse(testECR, "team/app", user("AWS1")) // it is gone
		want(t, c, testECR, "team/app", user("AWS2"))
		// A storm of refusals, as for a repository that nobody may read.
		for range 100 {
			c.Refuse(testECR, "team/app", user("AWS2"))
			want(t, c, testECR, "team/app", user("AWS2"))
		}
		<-time.After(refusalPause)
		c.Refuse(testECR, "team/app", user("AWS2"))
		want(t, c, testECR, "team/app", user("AWS3"))
		// The good token is not lost if AWS cannot be asked just then.
		cloud.set(func(s *standIn) { s.denied = "ServerException" })
		<-time.After(refusalPause)
		c.Refuse(testECR, "team/app", user("AWS3"))
		want(t, c, testECR, "team/app", user("AWS3"))
	})
}

func TestRefuseRunsPluginsAnew(t *testing.T) {
	t.Parallel()
	asked := askedSince(t, "refused-6.io")
	o, log := kubeletOptions(t, testPlugin{name: "p", match: "*.io", answer: answerOf("Registry", "", map[string]string{"a.io": "u"})})
	o.DockerConfig = write(t, "config.json", `{"credHelpers":{"refused-6.io":"good"}}`)
	c, _ := newTest(t, o)
	for range 5 {
		for _, host := range []string{"a.io", "refused-6.io"} {
			want(t, c, host, "team/app", user("u"))
			c.Refuse(host, "team/app", user("u"))
		}
	}
	plugin, helper := noted(t, log, "from p"), asked()
	if plugin != 2 || helper != 2 {
		t.Errorf("ran %d and %d times, want twice each: once more in %s", plugin, helper, refusalPause)
	}
}

func TestNamesAreChecked(t *testing.T) {
	t.Parallel()
	docker := write(t, "config.json", `{"credsStore":"good"}`)
	c, _ := newTest(t, Options{DockerConfig: docker})
	for _, at := range [][2]string{
		{"", "team/app"}, {"quay.io", ""}, {"quay.io", "Team/app"}, {"quay.io", "team/../app"}, {"quay.io\n", "team/app"},
		{"http://quay.io", "team/app"}, {"me:" + planted + "@quay.io", "team/app"}, {"quay.io/team", "app"}, {"-x.io", "team/app"},
		{"quay.io", strings.Repeat("a", 1<<16)},
	} {
		got, err := c.Credential(t.Context(), at[0], at[1])
		if !errdefs.IsInvalidArgument(err) || !got.IsZero() || len(err.Error()) > 300 {
			t.Errorf("%.80q: got %v, %.400v, want a short refusal", at, got, err)
		}
	}
}

func TestMemoryForMadeUpNames(t *testing.T) {
	t.Parallel()
	secret := write(t, "secret.json", secretText("file"))
	c, _ := newTest(t, Options{Rules: []Rule{{Host: "quay.io", File: secret}}})
	for i := range 2 * maxAnswers {
		want(t, c, "quay.io", fmt.Sprintf("team/app%d", i), user("file"))
	}
	if n := c.given.Len(); n != maxAnswers {
		t.Errorf("%d answers remembered, want %d", n, maxAnswers)
	}
}

func TestCallerThatLeft(t *testing.T) {
	t.Parallel()
	asked := askedSince(t, "left-7.io")
	docker := write(t, "config.json", `{"credHelpers":{"left-7.io":"good"}}`)
	c, _ := newTest(t, Options{DockerConfig: docker})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Credential(ctx, "left-7.io", "team/app"); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the caller's own end", err)
	}
	want(t, c, "left-7.io", "team/app", user("u"))
	if n := asked(); n != 1 {
		t.Errorf("the helper ran %d times, want once", n)
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	docker := write(t, "config.json", `{"auths":{"quay.io":{"auth":"`+basic("docker")+`"}}}`)
	cloud := newStandIn()
	cloud.life = time.Second
	c, _ := newTest(t, Options{DockerConfig: docker, ECR: true, AWS: cloud.config})
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			repository := fmt.Sprintf("team/app%d", i%5)
			for range 20 {
				want(t, c, "quay.io", repository, user("docker"))
				cred, err := c.Credential(soon(t), testECR, repository)
				if err != nil || cred.Secret != planted {
					t.Errorf("got %v, %v", cred, err)
				}
				c.Refuse(testECR, repository, cred)
			}
		})
	}
	all.Wait()
}

// Whatever is printed of a chain and its parts, the secret is not in it. The
// logs and errors of all other tests are searched for it too.
func TestSecretIsNotPrinted(t *testing.T) {
	t.Parallel()
	secret := write(t, "secret.json", secretText("file"))
	docker := write(t, "config.json", `{"credHelpers":{"printed-8.io":"good"}}`)
	c, _ := newTest(t, Options{Rules: []Rule{{Host: "quay.io", File: secret}}, DockerConfig: docker, ECR: true, AWS: newStandIn().config})
	want(t, c, "quay.io", "team/app", user("file"))
	want(t, c, "printed-8.io", "team/app", user("u"))
	want(t, c, testECR, "team/app", user("AWS1"))
	for _, l := range c.links {
		for _, text := range []string{fmt.Sprintf("%v", l), fmt.Sprintf("%+v", l), fmt.Sprintf("%#v", l)} {
			if strings.Contains(text, planted) {
				t.Errorf("%T tells the secret: %s", l.source, text)
			}
		}
	}
	for _, err := range []error{cloudError(errors.New(planted)), cloudError(fmt.Errorf("x: %w", &os.PathError{Op: planted, Path: planted, Err: errors.New(planted)}))} {
		if strings.Contains(err.Error(), planted) {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	_, err := New(Options{
		Rules:        []Rule{{Host: "quay.io"}, {Host: "ghcr.io", File: "relative"}},
		DockerConfig: "config.json", KubeletConfig: "kubelet.yaml", KubeletBinDir: "/usr/bin",
		AWS: func(context.Context) (aws.Config, error) { panic("asked at start") },
	})
	for _, text := range []string{"quay.io", "relative", "docker_config", "kubelet_config"} {
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want it to name %s", err, text)
		}
	}
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	want(t, c, "quay.io", "team/app", upstream.Credential{})
}
