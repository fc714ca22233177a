package credentials

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

func TestSecretsManager(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		aws := newStandIn()
		c, _ := newTest(t, Options{AWS: aws.config, Rules: []Rule{{Host: "docker.io", ARN: testARN}}})
		want(t, c, "registry-1.docker.io", "library/nginx", user("manager"))
		want(t, c, "registry-1.docker.io", "library/redis", user("manager"))
		want(t, c, "quay.io", "team/app", upstream.Credential{})
		got := aws.seen(opSecret)
		if len(got) != 1 || got[0].host != "secretsmanager.eu-central-1.amazonaws.com" {
			t.Errorf("asked %+v, want once, in the secret's region", got)
		}
		aws.set(func(s *standIn) { s.secret = secretText("rotated") })
		<-time.After(secretLife/2 + time.Second)
		want(t, c, "registry-1.docker.io", "library/nginx", user("manager"))
		synctest.Wait()
		want(t, c, "registry-1.docker.io", "library/nginx", user("rotated"))
	})
}

func TestSecretsManagerThatFails(t *testing.T) {
	t.Parallel()
	for _, f := range []struct {
		denied, secret, says string
		kind                 error
	}{
		{"ResourceNotFoundException", "", "ResourceNotFoundException", errdefs.ErrNotFound},
		{"AccessDeniedException", "", "not for you", errdefs.ErrPermissionDenied},
		{"", planted, "not JSON", errdefs.ErrInvalidArgument},
		{"", "{}", "no username", errdefs.ErrInvalidArgument},
	} {
		aws := newStandIn()
		aws.denied, aws.secret = f.denied, f.secret
		docker := write(t, "config.json", `{"auths":{"quay.io":{"username":"other","password":"p"}}}`)
		c, _ := newTest(t, Options{AWS: aws.config, DockerConfig: docker, Rules: []Rule{{Host: "quay.io", ARN: testARN}}})
		fails(t, c, f.kind, "quay.io", "team/app", "credential_arn", testARN, f.says)
	}
	c, _ := newTest(t, Options{AWS: nobody, Rules: []Rule{{Host: "quay.io", ARN: testARN}}})
	fails(t, c, errdefs.ErrNotFound, "quay.io", "team/app", "no AWS credentials")
}
