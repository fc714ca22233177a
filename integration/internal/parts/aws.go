package parts

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// The AWS account, and the region, of everything here.
const (
	AWSAccount = "123456789012"
	AWSRegion  = "eu-central-1"
)

// Operations of an AWS stand-in, as Count and Fail name them.
const (
	OpGetAuthorizationToken = "ecr:GetAuthorizationToken"
	OpDescribeRules         = "ecr:DescribePullThroughCacheRules"
	OpCreateRule            = "ecr:CreatePullThroughCacheRule"
	OpValidateRule          = "ecr:ValidatePullThroughCacheRule"
	OpGetSecretValue        = "secretsmanager:GetSecretValue"
	OpAssumeRole            = "sts:AssumeRole"
	OpIMDSToken             = "imds:token"
	OpIMDSRole              = "imds:role"
	OpIMDSRegion            = "imds:region"
)

// AWS is a stand-in for the AWS services that larder uses, as far as it uses
// them: ECR, Secrets Manager, STS and the metadata of an EC2 instance, all at
// one address. It speaks what the AWS SDK speaks, and believes only requests
// that are signed with a key that it knows.
type AWS struct {
	*server
	// root is the key of a user, role that of the instance.
	root, role awsKey

	mu       sync.Mutex // guards all below
	keys     map[string]awsKey
	count    map[string]int
	faults   map[string]AWSFault
	refused  []string // why requests were not believed
	sessions []string // tokens of the metadata service
	ecr      ecrState
	secrets  map[string]string // ARN to SecretString
	roles    map[string]bool   // ARNs that may be assumed
}

// awsKey is an access key and whose it is.
type awsKey struct {
	id, secret, session string
	principal           string
}

// AWSFault is a way to fail.
type AWSFault int

// What Fail can do to an operation.
const (
	AWSThrottle AWSFault = iota + 1
	AWSServerError
	AWSAccessDenied
	// AWSHang answers nothing until the client goes.
	AWSHang
)

// InstanceRole is the principal of the key that the metadata service gives out.
const InstanceRole = "arn:aws:iam::" + AWSAccount + ":role/node"

// StartAWS starts a stand-in that holds nothing yet.
func StartAWS() (*AWS, error) {
	a := &AWS{
		keys: map[string]awsKey{}, count: map[string]int{}, faults: map[string]AWSFault{},
		secrets: map[string]string{}, roles: map[string]bool{},
		ecr: ecrState{lifetime: 12 * time.Hour, tokens: map[string]*ecrToken{}},
	}
	a.root = a.newKey("AKIA", "arn:aws:iam::"+AWSAccount+":user/larder", false)
	a.role = a.newKey("ASIA", InstanceRole, true)
	var err error
	a.server, err = serve(a, nil)
	return a, err
}

// newKey makes a key that the stand-in then believes.
func (a *AWS) newKey(kind, principal string, session bool) awsKey {
	k := awsKey{id: kind + rand.Text()[:16], secret: rand.Text() + rand.Text()[:14], principal: principal}
	if session {
		k.session = rand.Text() + rand.Text() + rand.Text()
	}
	a.keys[k.id] = k
	return k
}

// Env points a program at the stand-in, with a user's key.
func (a *AWS) Env() []string {
	return append(a.endpoints(), "AWS_ACCESS_KEY_ID="+a.root.id, "AWS_SECRET_ACCESS_KEY="+a.root.secret,
		"AWS_REGION="+AWSRegion, "AWS_EC2_METADATA_DISABLED=true")
}

// InstanceEnv points a program at the stand-in as on an EC2 instance with a
// role: key and region come from the metadata service.
func (a *AWS) InstanceEnv() []string {
	return append(a.endpoints(), "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_REGION=",
		"AWS_EC2_METADATA_DISABLED=false", "AWS_EC2_METADATA_SERVICE_ENDPOINT="+a.URL())
}

// endpoints also shuts out what the machine's own environment says of AWS.
func (a *AWS) endpoints() []string {
	return []string{
		"AWS_ENDPOINT_URL_ECR=" + a.URL(), "AWS_ENDPOINT_URL_SECRETS_MANAGER=" + a.URL(), "AWS_ENDPOINT_URL_STS=" + a.URL(),
		"AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent", "AWS_PROFILE=", "AWS_DEFAULT_REGION=", "AWS_CA_BUNDLE=",
		"AWS_SESSION_TOKEN=", "AWS_ROLE_ARN=", "AWS_WEB_IDENTITY_TOKEN_FILE=",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=", "AWS_CONTAINER_CREDENTIALS_FULL_URI=",
	}
}

// Secrets are all secret texts that the stand-in holds or gave out: what must
// not be found elsewhere.
func (a *AWS) Secrets() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for _, k := range a.keys {
		all = append(all, k.secret)
		if k.session != "" {
			all = append(all, k.session)
		}
	}
	for password := range maps.Keys(a.ecr.tokens) {
		all = append(all, password)
	}
	return append(all, a.sessions...)
}

// Fail has an operation fail until the returned function is called.
func (a *AWS) Fail(op string, fault AWSFault) (mend func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults[op] = fault
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.faults, op)
	}
}

// Count is how often an operation was asked for, failed ones and repetitions
// included. The SDK repeats what was throttled or failed with 5xx.
func (a *AWS) Count(op string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count[op]
}

// Refused tells why requests were not believed: bad signatures, wrong regions.
func (a *AWS) Refused() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.refused...)
}

// ServeHTTP is all services.
func (a *AWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	target := r.Header.Get("X-Amz-Target")
	switch {
	case strings.HasPrefix(r.URL.Path, "/latest/"):
		a.serveIMDS(w, r)
	case strings.HasPrefix(target, "AmazonEC2ContainerRegistry_V20150921."):
		_, name, _ := strings.Cut(target, ".")
		a.call(w, r, body, jsonService{}, "ecr", "ecr:"+name)
	case strings.HasPrefix(target, "secretsmanager."):
		_, name, _ := strings.Cut(target, ".")
		a.call(w, r, body, jsonService{}, "secretsmanager", "secretsmanager:"+name)
	case r.Method == http.MethodPost && strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded"):
		if err := r.ParseForm(); err == nil {
			a.call(w, r, body, queryService{}, "sts", "sts:"+r.PostForm.Get("Action"))
		}
	default:
		http.Error(w, fmt.Sprintf("aws stand-in: no service for %s %s %q", r.Method, r.URL.Path, target), http.StatusNotFound)
	}
}

// awsProtocol writes what a service says.
type awsProtocol interface {
	fail(w http.ResponseWriter, status int, code, message string)
}

// call counts and checks one request of a service, and then serves it.
func (a *AWS) call(w http.ResponseWriter, r *http.Request, body []byte, p awsProtocol, service, op string) {
	a.mu.Lock()
	a.count[op]++
	fault := a.faults[op]
	key, err := a.verify(r, body, service)
	if err != nil {
		a.refused = append(a.refused, op+": "+err.Error())
	}
	a.mu.Unlock()
	switch {
	case fault == AWSHang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case err != nil:
		p.fail(w, http.StatusForbidden, "InvalidSignatureException", err.Error())
	case fault == AWSThrottle:
		p.fail(w, http.StatusBadRequest, "ThrottlingException", "Rate exceeded")
	case fault == AWSServerError:
		p.fail(w, http.StatusInternalServerError, "InternalFailure", "the stand-in was told to fail")
	case fault == AWSAccessDenied:
		p.fail(w, http.StatusForbidden, "AccessDeniedException", fmt.Sprintf("User: %s is not authorized to perform: %s", key.principal, op))
	default:
		a.serveOp(w, r, body, p, op, key)
	}
}

func (a *AWS) serveOp(w http.ResponseWriter, r *http.Request, body []byte, p awsProtocol, op string, key awsKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch op {
	case OpGetAuthorizationToken:
		a.getAuthorizationToken(w, key)
	case OpDescribeRules:
		a.describeRules(w, body)
	case OpCreateRule:
		a.createRule(w, body)
	case OpValidateRule:
		a.validateRule(w, body)
	case OpGetSecretValue:
		a.getSecretValue(w, body)
	case OpAssumeRole:
		a.assumeRole(w, r)
	default:
		p.fail(w, http.StatusBadRequest, "UnknownOperationException", op)
	}
}
