package credentials

import (
	"bytes"
	"encoding/base64"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

// The API that is asked belongs to the registry's host.
func TestECREndpoints(t *testing.T) {
	t.Parallel()
	for host, api := range map[string]call{
		testECR: {host: "api.ecr.eu-central-1.amazonaws.com", op: opPrivate, region: "eu-central-1"},
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com": {host: "api.ecr-fips.us-gov-west-1.amazonaws.com", op: opPrivate, region: "us-gov-west-1"},
		"123456789012.dkr-ecr.us-east-1.on.aws":                 {host: "ecr.us-east-1.api.aws", op: opPrivate, region: "us-east-1"},
		"123456789012.dkr-ecr-fips.us-east-1.on.aws":            {host: "ecr-fips.us-east-1.api.aws", op: opPrivate, region: "us-east-1"},
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":      {host: "api.ecr.cn-north-1.amazonaws.com.cn", op: opPrivate, region: "cn-north-1"},
		"123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov":         {host: "api.ecr.us-iso-east-1.c2s.ic.gov", op: opPrivate, region: "us-iso-east-1"},
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu":      {host: "api.ecr.eusc-de-east-1.amazonaws.eu", op: opPrivate, region: "eusc-de-east-1"},
		"public.ecr.aws":     {host: "api.ecr-public.us-east-1.amazonaws.com", op: opPublic, region: "us-east-1"},
		"ecr-public.aws.com": {host: "api.ecr-public.us-east-1.amazonaws.com", op: opPublic, region: "us-east-1"},
	} {
		aws := newStandIn()
		c, _ := newTest(t, Options{ECR: true, AWS: aws.config})
		want(t, c, host, "team/app", user("AWS1"))
		want(t, c, "quay.io", "team/app", upstream.Credential{})
		api.key = "NODEKEY"
		if len(aws.calls) != 1 || aws.calls[0] != api {
			t.Errorf("%s: AWS was asked %+v, want once %+v", host, aws.calls, api)
		}
	}
}

// One token serves all registries of a region, and only of that; a role has its
// own.
func TestECRTokenIsShared(t *testing.T) {
	t.Parallel()
	aws := newStandIn()
	c, _ := newTest(t, Options{ECR: true, AWS: aws.config, Rules: []Rule{{Host: testECR, Prefix: "role", RoleARN: testRole}}})
	want(t, c, testECR, "team/app", user("AWS1"))
	want(t, c, testECR, "team/other", user("AWS1"))
	want(t, c, strings.Replace(testECR, "1234", "4321", 1), "team/app", user("AWS1"))
	want(t, c, strings.Replace(testECR, "eu-central-1", "eu-west-1", 1), "team/app", user("AWS2"))
	want(t, c, testECR, "role/app", user("AWS4")) // AWS3 is the role itself
	want(t, c, testECR, "team/app", user("AWS1"))
}

func TestECRHalfLifeAndStale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		aws := newStandIn()
		c, l := newTest(t, Options{ECR: true, AWS: aws.config})
		now := func(name string) {
			t.Helper()
			want(t, c, testECR, "team/app", user(name))
			synctest.Wait()
		}
		now("AWS1")
		<-time.After(6*time.Hour - time.Minute)
		now("AWS1")
		if n := len(aws.seen(opPrivate)); n != 1 {
			t.Errorf("asked %d times before half the token's life, want once", n)
		}
		<-time.After(2 * time.Minute)
		now("AWS1")
		now("AWS2") // renewed behind the last call
		aws.set(func(s *standIn) { s.denied = "AccessDeniedException" })
		<-time.After(24 * time.Hour)
		now("AWS2") // expired, and AWS says no
		if !strings.Contains(l.String(), "AccessDeniedException") || !strings.Contains(l.String(), "the old one is used") {
			t.Errorf("no word of it:\n%s", l)
		}
		aws.set(func(s *standIn) { s.denied = "" })
		<-time.After(failurePause)
		now("AWS3")
	})
}

func TestECRDenied(t *testing.T) {
	t.Parallel()
	aws := newStandIn()
	aws.denied = "AccessDeniedException"
	c, l := newTest(t, Options{ECR: true, AWS: aws.config, Rules: []Rule{{Host: testECR, Prefix: "team", RoleARN: testRole}}})
	fails(t, c, errdefs.ErrPermissionDenied, testECR, "free/app", "ecr:", "eu-central-1", "AccessDeniedException", "not for you")
	fails(t, c, errdefs.ErrPermissionDenied, testECR, "team/app", "custom_role_arn "+testRole)
	// Everybody may read the gallery.
	want(t, c, "public.ecr.aws", "team/app", upstream.Credential{})
	if !strings.Contains(l.String(), "anonymously") {
		t.Errorf("no word of it:\n%s", l)
	}
}

func TestECRBadTokens(t *testing.T) {
	t.Parallel()
	for _, token := range []*string{nil, aws.String(""), aws.String(planted), aws.String(base64.StdEncoding.EncodeToString([]byte(planted))),
		aws.String(base64.StdEncoding.EncodeToString([]byte("AWS:")))} {
		cred, err := parseToken(token)
		if err == nil || !cred.IsZero() || strings.Contains(err.Error(), planted) {
			t.Errorf("%v: got %v, %v", token, cred, err)
		}
	}
}

// A clock that is wrong must not cost a call to AWS for each pull.
func TestECRTokenThatSeemsExpired(t *testing.T) {
	t.Parallel()
	aws := newStandIn()
	aws.life = -time.Hour
	c, _ := newTest(t, Options{ECR: true, AWS: aws.config})
	want(t, c, testECR, "team/app", user("AWS1"))
	want(t, c, testECR, "team/app", user("AWS1"))
}

func TestECRWithoutAWS(t *testing.T) {
	t.Parallel()
	c, l := newTest(t, Options{ECR: true, AWS: nobody, Rules: []Rule{{Host: testECR, Prefix: "team", RoleARN: testRole}}})
	want(t, c, "public.ecr.aws", "team/app", upstream.Credential{})
	if l.String() != "" {
		t.Errorf("logged for a gallery that all may read:\n%s", l)
	}
	want(t, c, testECR, "free/app", upstream.Credential{})
	want(t, c, testECR, "free/app", upstream.Credential{})
	if n := strings.Count(l.String(), "no AWS credentials for ECR"); n != 1 {
		t.Errorf("told %d times, want once:\n%s", n, l)
	}
	fails(t, c, errdefs.ErrNotFound, testECR, "team/app", "custom_role_arn", "no AWS credentials")
}

func TestRoleIsAssumed(t *testing.T) {
	t.Parallel()
	aws := newStandIn()
	// Also where the node itself is not to use ECR, and before docker's file.
	docker := write(t, "config.json", `{"auths":{"`+testECR+`":{"username":"docker","password":"`+planted+`"}}}`)
	c, _ := newTest(t, Options{AWS: aws.config, DockerConfig: docker, Rules: []Rule{{Host: testECR, Prefix: "team", RoleARN: testRole}}})
	want(t, c, testECR, "team/app", user("AWS2"))
	want(t, c, testECR, "free/app", user("docker"))
	assumed, got := aws.seen(opRole), aws.seen(opPrivate)
	if len(assumed) != 1 || assumed[0].key != "NODEKEY" || assumed[0].region != "eu-central-1" {
		t.Errorf("assumed by %+v, want once, by the node, in the registry's region", assumed)
	}
	if len(got) != 1 || got[0].key != "ROLEKEY" {
		t.Errorf("the token was got by %+v, want once, by the role", got)
	}
}

// asProgram runs a chain in a process with AWS's environment and nothing else.
func asProgram(t *testing.T, host string, env ...string) (string, time.Duration) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(soon(t), self)
	cmd.Env = append(env, "LARDER_TEST_CHAIN="+host, "HOME="+t.TempDir())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	defer func() {
		if stderr.Len() > 0 {
			t.Errorf("it wrote to standard error: %s", &stderr)
		}
	}()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, rest, _ := strings.Cut(string(out), " ")
	took, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return rest, took
}

func TestEnvironmentOfAWS(t *testing.T) {
	t.Parallel()
	aws := newStandIn()
	server := httptest.NewServer(aws)
	t.Cleanup(server.Close)
	for _, host := range []string{testECR, "123456789012.dkr-ecr-fips.us-east-1.on.aws", "public.ecr.aws"} {
		out, _ := asProgram(t, host, "AWS_ENDPOINT_URL_ECR="+server.URL, "AWS_ENDPOINT_URL_ECR_PUBLIC="+server.URL,
			"AWS_ACCESS_KEY_ID=ENVKEY", "AWS_SECRET_ACCESS_KEY="+planted)
		if !strings.HasPrefix(out, "credential of AWS") || !strings.HasSuffix(out, "planted=true err=<nil>") {
			t.Errorf("%s: got %q, want a credential", host, out)
		}
	}
	for _, c := range append(aws.seen(opPrivate), aws.seen(opPublic)...) {
		if c.key != "ENVKEY" {
			t.Errorf("asked by %+v, want the key of the environment", c)
		}
	}
}

// Outside AWS there is no metadata service, or something that swallows what
// is sent to its address.
func TestNoMetadataServiceIsFoundOutFast(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]string{"silence": silence(t), "refusal": "http://127.0.0.1:1"} {
		for _, host := range []string{"public.ecr.aws", testECR} {
			t.Run(name+" "+host, func(t *testing.T) {
				t.Parallel()
				out, took := asProgram(t, host, "AWS_EC2_METADATA_SERVICE_ENDPOINT="+at)
				if out != "no credential planted=false err=<nil>" {
					t.Errorf("got %q, want none", out)
				}
				if most := map[string]time.Duration{"silence": probeLimit + 3*time.Second, "refusal": probeLimit - time.Second}[name]; took > most {
					t.Errorf("took %s, want at most %s", took, most)
				}
			})
		}
	}
}
