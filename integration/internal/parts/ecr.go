package parts

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
)

// The names under which an ECR look-alike is reached, by way of a Proxy.
const (
	ECRHost      = AWSAccount + ".dkr.ecr." + AWSRegion + ".amazonaws.com"
	ECRLayerHost = "prod-" + AWSRegion + "-starport-layer-bucket.s3." + AWSRegion + ".amazonaws.com"
)

// ECROptions say what a look-alike holds and whom it lets in.
type ECROptions struct {
	// CA signs the certificates of both hosts.
	CA *CA
	// Backend is the base of the registry with the images.
	Backend string
	// AWS gives the passwords.
	AWS *AWS
	// Principal, if any, is the only one whose passwords are taken.
	Principal string
}

// ECR looks like a private Amazon ECR registry from outside: Basic credentials
// of AWS, its own words in refusals, and layers by redirect to a bucket. It
// reads from another registry.
type ECR struct {
	opts     ECROptions
	registry *server
	bucket   *server

	mu     sync.Mutex // guards all below
	signed map[string]string
	count  ECRCount
}

// ECRCount is what clients did.
type ECRCount struct {
	// Challenged, Expired, Refused and Accepted are the registry's answers to
	// credentials: none, a revoked one, a wrong one, a good one.
	Challenged, Expired, Refused, Accepted int
	// Layers were fetched from the bucket.
	Layers int
	// Leaked are requests that showed a credential to the bucket.
	Leaked int
}

// StartECR starts a look-alike.
func StartECR(opts ECROptions) (*ECR, error) {
	e := &ECR{opts: opts, signed: map[string]string{}}
	registryTLS, err := opts.CA.serverTLS(ECRHost)
	if err != nil {
		return nil, err
	}
	bucketTLS, err := opts.CA.serverTLS(ECRLayerHost)
	if err != nil {
		return nil, err
	}
	backend, err := passTo(opts.Backend, nil, withoutDigest)
	if err != nil {
		return nil, err
	}
	layers, err := passTo(opts.Backend, func(r *http.Request) {
		r.URL.Path, _ = r.Context().Value(layerPath{}).(string)
		r.URL.RawQuery = ""
	}, withoutDigest)
	if err != nil {
		return nil, err
	}
	if e.registry, err = serve(e.guard(backend), registryTLS); err != nil {
		return nil, err
	}
	if e.bucket, err = serve(e.serveBucket(layers), bucketTLS); err != nil {
		return nil, errors.Join(err, e.registry.Close())
	}
	return e, nil
}

// Routes lead a Proxy to the look-alike.
func (e *ECR) Routes() map[string]string {
	return map[string]string{ECRHost + ":443": e.registry.Addr(), ECRLayerHost + ":443": e.bucket.Addr()}
}

// Count is what happened so far.
func (e *ECR) Count() ECRCount {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.count
}

// Seen are the registry's requests so far.
func (e *ECR) Seen() []Seen { return e.registry.Seen() }

// Close ends both hosts.
func (e *ECR) Close() error { return errors.Join(e.registry.Close(), e.bucket.Close()) }

// withoutDigest takes Docker-Content-Digest from answers to GET, as ECR has none.
func withoutDigest(resp *http.Response) error {
	if resp.Request.Method == http.MethodGet {
		resp.Header.Del("Docker-Content-Digest")
	}
	return nil
}

// guard is the registry host.
func (e *ECR) guard(backend http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, has := r.BasicAuth()
		principal, known, good := e.opts.AWS.token(password)
		e.mu.Lock()
		answer := e.judge(has, known && user == "AWS", good, principal)
		e.mu.Unlock()
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		switch {
		case answer != nil:
			answer(w)
		case r.Method == http.MethodGet && layerURL.MatchString(r.URL.Path):
			http.Redirect(w, r, "https://"+ECRLayerHost+"/"+e.sign(r.URL.Path), http.StatusTemporaryRedirect)
		default:
			backend.ServeHTTP(w, r)
		}
	})
}

var layerURL = regexp.MustCompile(`^/v2/.+/blobs/sha256:[0-9a-f]{64}$`)

// judge counts who asks, and returns what to answer to who may not. e.mu is held.
func (e *ECR) judge(has, known, good bool, principal string) func(http.ResponseWriter) {
	switch {
	case !has || !known:
		if has {
			e.count.Refused++
		} else {
			e.count.Challenged++
		}
		return func(w http.ResponseWriter) {
			w.Header().Set("Www-Authenticate", `Basic realm="https://`+ECRHost+`/",service="ecr.amazonaws.com"`)
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte("Not Authorized\n"))
		}
	case !good:
		e.count.Expired++
		return denied("Your authorization token has expired. Reauthenticate and try again.")
	case e.opts.Principal != "" && principal != e.opts.Principal:
		e.count.Refused++
		return denied("User: " + principal + " is not authorized to perform: ecr:BatchGetImage")
	}
	e.count.Accepted++
	return nil
}

func denied(message string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		writeJSON(w, http.StatusForbidden, map[string]any{"errors": []map[string]string{{"code": "DENIED", "message": message}}})
	}
}

// layerPath is the key of the context value for the backend's path.
type layerPath struct{}

// sign makes the bucket's path and query for a blob, good once.
func (e *ECR) sign(path string) string {
	signature := strings.ToLower(rand.Text())
	e.mu.Lock()
	defer e.mu.Unlock()
	e.signed[signature] = path
	return fmt.Sprintf("%s?X-Amz-Expires=3600&X-Amz-Signature=%s", path[strings.LastIndexByte(path, ':')+1:], signature)
}

// serveBucket refuses, as S3 does, who shows two kinds of credentials.
func (e *ECR) serveBucket(layers http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		signature := r.URL.Query().Get("X-Amz-Signature")
		e.mu.Lock()
		path, ok := e.signed[signature]
		delete(e.signed, signature)
		leaked := r.Header.Get("Authorization") != ""
		switch {
		case leaked:
			e.count.Leaked++
		case ok:
			e.count.Layers++
		}
		e.mu.Unlock()
		switch {
		case leaked:
			http.Error(w, "<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>", http.StatusBadRequest)
		case !ok:
			http.Error(w, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", http.StatusForbidden)
		default:
			layers.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), layerPath{}, path)))
		}
	})
}
