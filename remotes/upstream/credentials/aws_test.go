package credentials

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awscreds "github.com/aws/aws-sdk-go-v2/credentials"
)

// standIn answers as the AWS APIs do that larder asks. It is an http.Handler
// for a real socket, and an aws.HTTPClient for tests in which time is faked.
type standIn struct {
	mu     sync.Mutex
	calls  []call
	life   time.Duration // of ECR's tokens
	denied string        // an error code in place of an answer
	secret string        // in Secrets Manager
	issued int
}

// call is a request that arrived.
type call struct{ host, op, region, key string }

func newStandIn() *standIn { return &standIn{life: 12 * time.Hour, secret: secretText("manager")} }

func (s *standIn) set(f func(*standIn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// seen are the requests for an operation.
func (s *standIn) seen(op string) []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var of []call
	for _, c := range s.calls {
		if c.op == op {
			of = append(of, c)
		}
	}
	return of
}

// Do implements aws.HTTPClient.
func (s *standIn) Do(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, req)
	return w.Result(), nil
}

// ServeHTTP implements http.Handler.
func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := call{host: r.Host, op: r.Header.Get("X-Amz-Target")}
	if r.URL.Host != "" {
		c.host = r.URL.Host
	}
	body, _ := io.ReadAll(r.Body)
	if c.op == "" {
		form, _ := url.ParseQuery(string(body))
		c.op = form.Get("Action") + " " + form.Get("RoleArn")
	}
	// Authorization: AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, …
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	if parts := strings.Split(scope, "/"); len(parts) > 3 {
		c.key, c.region = parts[0], parts[2]
	}
	s.calls = append(s.calls, c)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if s.denied != "" {
		w.WriteHeader(http.StatusBadRequest)
		if strings.HasPrefix(c.op, "AssumeRole") {
			fmt.Fprintf(w, `<ErrorResponse><Error><Code>%s</Code><Message>not for you</Message></Error></ErrorResponse>`, s.denied)
			return
		}
		fmt.Fprintf(w, `{"__type":%q,"message":"not for you"}`, s.denied)
		return
	}
	s.issued++
	token := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "AWS%d:%s", s.issued, planted))
	data := fmt.Sprintf(`{"authorizationToken":%q,"expiresAt":%d}`, token, time.Now().Add(s.life).Unix())
	switch {
	case strings.HasPrefix(c.op, "AmazonEC2ContainerRegistry"):
		fmt.Fprintf(w, `{"authorizationData":[%s]}`, data)
	case strings.HasPrefix(c.op, "SpencerFrontendService"):
		fmt.Fprintf(w, `{"authorizationData":%s}`, data)
	case strings.HasPrefix(c.op, "secretsmanager"):
		text, _ := json.Marshal(s.secret)
		fmt.Fprintf(w, `{"SecretString":%s}`, text)
	case strings.HasPrefix(c.op, "AssumeRole"):
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ROLEKEY</AccessKeyId>
			<SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration>
			</Credentials></AssumeRoleResult></AssumeRoleResponse>`, planted, planted, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// config is an aws.Config of somebody whom the stand-in knows.
func (s *standIn) config(context.Context) (aws.Config, error) {
	return aws.Config{
		HTTPClient:  s,
		Credentials: awscreds.NewStaticCredentialsProvider("NODEKEY", planted, planted),
		Retryer:     func() aws.Retryer { return aws.NopRetryer{} },
	}, nil
}

// nobody is an aws.Config without credentials.
func nobody(context.Context) (aws.Config, error) { return aws.Config{}, nil }

// Operations as the requests have them.
const (
	opPrivate = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
	opPublic  = "SpencerFrontendService.GetAuthorizationToken"
	opSecret  = "secretsmanager.GetSecretValue"
	opRole    = "AssumeRole " + testRole
)

// unanswered is a metadata service that does not answer.
type unanswered struct{}

func (unanswered) Retrieve(ctx context.Context) (aws.Credentials, error) {
	<-ctx.Done()
	return aws.Credentials{}, ctx.Err()
}

func (unanswered) ProviderSources() []aws.CredentialSource {
	return []aws.CredentialSource{aws.CredentialSourceIMDS}
}

func TestMetadataServiceIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		err := haveCredentials(t.Context(), aws.Config{Credentials: unanswered{}})
		if _, none := errors.AsType[*noneError](err); !none || time.Since(begun) != probeLimit {
			t.Errorf("got %v after %s, want none after %s", err, time.Since(begun), probeLimit)
		}
	})
}

// silence is an address that takes requests and never answers.
func silence(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.URL
}
