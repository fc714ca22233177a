package parts

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

// sdk starts a stand-in and loads the SDK's configuration from an environment.
func sdk(t *testing.T, env func(*AWS) []string) (*AWS, aws.Config) {
	t.Helper()
	a, err := StartAWS()
	if err != nil {
		t.Fatal(err)
	}
	ended(t, a.Close)
	for _, entry := range env(a) {
		k, v, _ := strings.Cut(entry, "=")
		t.Setenv(k, v)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	cfg, err := config.LoadDefaultConfig(t.Context(),
		config.WithHTTPClient(&http.Client{Transport: tr}), config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }))
	if err != nil {
		t.Fatal(err)
	}
	return a, cfg
}

func TestAWSForSDK(t *testing.T) { //nolint:paralleltest // sets the environment
	a, cfg := sdk(t, (*AWS).Env)
	client := ecr.NewFromConfig(cfg)
	password, expires := authToken(t, client)
	if principal, known, good := a.token(password); !known || !good || !strings.HasSuffix(principal, ":user/larder") {
		t.Errorf("password: got %s, known %t, good %t", principal, known, good)
	}
	if d := time.Until(expires) - 12*time.Hour; d.Abs() > time.Minute {
		t.Errorf("expires at %v, want 12 hours from now", expires)
	}
	a.RevokeTokens()
	if _, _, good := a.token(password); good {
		t.Error("the password is good after RevokeTokens")
	}
	a.SetTokenLifetime(-time.Hour)
	second, expires := authToken(t, client)
	if second == password || time.Until(expires) > 0 {
		t.Errorf("got the same password: %t, expiry %v, want a new one that is past", second == password, expires)
	}

	arn := a.AddSecret("ecr-pullthroughcache/hub", `{"username":"ada","accessToken":"pw1"}`)
	secrets := secretsmanager.NewFromConfig(cfg)
	value, err := secrets.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &arn})
	if err != nil || aws.ToString(value.SecretString) != `{"username":"ada","accessToken":"pw1"}` {
		t.Errorf("secret: got %v, %v", value, err)
	}
	_, err = secrets.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String("arn:none")})
	wantCode(t, err, "ResourceNotFoundException")

	const role = "arn:aws:iam::123456789012:role/puller"
	assume := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), role)
	_, err = assume.Retrieve(t.Context())
	wantCode(t, err, "AccessDenied")
	a.AllowRole(role)
	as := cfg.Copy()
	as.Credentials = aws.NewCredentialsCache(assume)
	password, _ = authToken(t, ecr.NewFromConfig(as))
	if principal, _, _ := a.token(password); principal != role {
		t.Errorf("with the role: the password is of %q, want %s", principal, role)
	}
	if got := a.Refused(); len(got) != 0 {
		t.Errorf("signatures were refused: %v", got)
	}
	if a.Count(OpGetAuthorizationToken) != 3 || a.Count(OpAssumeRole) != 2 || a.Count(OpGetSecretValue) != 2 {
		t.Errorf("counted %d tokens, %d roles, %d secrets", a.Count(OpGetAuthorizationToken), a.Count(OpAssumeRole), a.Count(OpGetSecretValue))
	}
}

func TestAWSRulesForSDK(t *testing.T) { //nolint:paralleltest // sets the environment
	a, cfg := sdk(t, (*AWS).Env)
	client := ecr.NewFromConfig(cfg)
	a.SetRules(2, PullThroughCacheRule{EcrRepositoryPrefix: "aa", UpstreamRegistryURL: "quay.io"},
		PullThroughCacheRule{EcrRepositoryPrefix: "bb", UpstreamRegistryURL: "registry.k8s.io", UpstreamRegistry: "k8s"},
		PullThroughCacheRule{EcrRepositoryPrefix: "cc", UpstreamRegistryURL: "ghcr.io", CredentialArn: "arn:x", CustomRoleArn: "arn:r"})
	create := &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: aws.String("dd"), UpstreamRegistryUrl: aws.String("quay.io")}
	made, err := client.CreatePullThroughCacheRule(t.Context(), create)
	if err != nil || aws.ToString(made.RegistryId) != AWSAccount || aws.ToTime(made.CreatedAt).IsZero() {
		t.Errorf("create: got %+v, %v", made, err)
	}
	_, err = client.CreatePullThroughCacheRule(t.Context(), create)
	wantCode(t, err, "PullThroughCacheRuleAlreadyExistsException")

	var got []string
	pages := ecr.NewDescribePullThroughCacheRulesPaginator(client, &ecr.DescribePullThroughCacheRulesInput{})
	n := 0
	for ; pages.HasMorePages(); n++ {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.PullThroughCacheRules {
			got = append(got, aws.ToString(r.EcrRepositoryPrefix)+"="+aws.ToString(r.UpstreamRegistryUrl)+aws.ToString(r.CustomRoleArn))
		}
	}
	if want := []string{"aa=quay.io", "bb=registry.k8s.io", "cc=ghcr.ioarn:r", "dd=quay.io"}; n != 2 || !slices.Equal(got, want) {
		t.Errorf("got %v in %d pages, want %v in 2", got, n, want)
	}
	_, err = client.DescribePullThroughCacheRules(t.Context(), &ecr.DescribePullThroughCacheRulesInput{EcrRepositoryPrefixes: []string{"zz"}})
	wantCode(t, err, "PullThroughCacheRuleNotFoundException")

	a.SetInvalid("bb", "upstream is not there")
	for prefix, want := range map[string]bool{"aa": true, "bb": false} {
		v, err := client.ValidatePullThroughCacheRule(t.Context(), &ecr.ValidatePullThroughCacheRuleInput{EcrRepositoryPrefix: &prefix})
		if err != nil || v.IsValid != want || (aws.ToString(v.Failure) == "") != want {
			t.Errorf("validate %s: got %+v, %v, want valid %t", prefix, v, err, want)
		}
	}
	_, err = client.ValidatePullThroughCacheRule(t.Context(), &ecr.ValidatePullThroughCacheRuleInput{EcrRepositoryPrefix: aws.String("zz")})
	wantCode(t, err, "PullThroughCacheRuleNotFoundException")
}

func TestAWSInstanceForSDK(t *testing.T) { //nolint:paralleltest // sets the environment
	a, cfg := sdk(t, (*AWS).InstanceEnv)
	cfg.Region = AWSRegion // the SDK takes it from the metadata service only for whom asks
	password, _ := authToken(t, ecr.NewFromConfig(cfg))
	if principal, _, _ := a.token(password); principal != InstanceRole {
		t.Errorf("the password is of %q, want %s", principal, InstanceRole)
	}
	if a.Count(OpIMDSToken) == 0 || a.Count(OpIMDSRole) == 0 || len(a.Refused()) != 0 {
		t.Errorf("metadata: %d tokens, %d roles, refused %v", a.Count(OpIMDSToken), a.Count(OpIMDSRole), a.Refused())
	}
	reg, err := config.LoadDefaultConfig(t.Context(), config.WithEC2IMDSRegion(), config.WithHTTPClient(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}))
	if err != nil || reg.Region != AWSRegion {
		t.Errorf("region: got %q, %v, want %s", reg.Region, err, AWSRegion)
	}
}

func TestAWSFaults(t *testing.T) { //nolint:paralleltest // sets the environment
	a, cfg := sdk(t, (*AWS).Env)
	client := ecr.NewFromConfig(cfg)
	for fault, code := range map[AWSFault]string{
		AWSThrottle: "ThrottlingException", AWSServerError: "InternalFailure", AWSAccessDenied: "AccessDeniedException",
	} {
		mend := a.Fail(OpGetAuthorizationToken, fault)
		_, err := client.GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{})
		wantCode(t, err, code)
		if fault != AWSAccessDenied && !(retry.IsErrorRetryables(retry.DefaultRetryables).IsErrorRetryable(err) == aws.TrueTernary) {
			t.Errorf("%s: the SDK would not ask again", code)
		}
		mend()
	}
	mend := a.Fail(OpGetAuthorizationToken, AWSHang)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hang: got %v, want the deadline", err)
	}
	mend()
	authToken(t, client)
}

// Requests that are signed with another key, secret, region or for another body
// are not believed.
func TestAWSChecksSignatures(t *testing.T) { //nolint:paralleltest // sets the environment
	a, cfg := sdk(t, (*AWS).Env)
	good, err := cfg.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*ecr.Options, *aws.Credentials){
		"secret":  func(_ *ecr.Options, c *aws.Credentials) { c.SecretAccessKey += "x" },
		"key":     func(_ *ecr.Options, c *aws.Credentials) { c.AccessKeyID = "AKIAOTHER" },
		"session": func(_ *ecr.Options, c *aws.Credentials) { c.SessionToken = "other" },
		"region":  func(o *ecr.Options, _ *aws.Credentials) { o.Region = "us-east-1" },
	} {
		client := ecr.NewFromConfig(cfg, func(o *ecr.Options) {
			bad := good
			change(o, &bad)
			o.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return bad, nil })
		})
		_, err := client.GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{})
		if err == nil {
			t.Errorf("wrong %s: believed", name)
			continue
		}
		wantCode(t, err, "InvalidSignatureException")
	}
	if n := len(a.Refused()); n != 4 {
		t.Errorf("%d requests refused, want 4: %v", n, a.Refused())
	}
	resp, err := ask(t, nil, http.MethodPost, a.URL(), func(r *http.Request) {
		r.Header.Set("X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken")
	})
	if err != nil || resp.status != http.StatusForbidden {
		t.Errorf("unsigned: got %d, %v, want 403", resp.status, err)
	}
}

// authToken gets a password and its expiry.
func authToken(t *testing.T, client *ecr.Client) (password string, expires time.Time) {
	t.Helper()
	out, err := client.GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	data := out.AuthorizationData[0]
	plain, err := base64.StdEncoding.DecodeString(aws.ToString(data.AuthorizationToken))
	if err != nil {
		t.Fatal(err)
	}
	password, ok := strings.CutPrefix(string(plain), "AWS:")
	if !ok || data.ExpiresAt == nil {
		t.Fatalf("authorization token: %q, expires %v", plain, data.ExpiresAt)
	}
	return password, *data.ExpiresAt
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != code {
		t.Errorf("got %v, want an error of the API with code %s", err, code)
	}
}
