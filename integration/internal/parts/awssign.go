package parts

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$`)

// errSignature tells why a request is not believed.
var errSignature = errors.New("request is not believed")

// verify checks a request's signature (Signature Version 4) by signing it once
// more with the key that it names. a.mu is held.
func (a *AWS) verify(r *http.Request, body []byte, service string) (awsKey, error) {
	m := authorization.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil {
		return awsKey{}, fmt.Errorf("authorization %.40q: %w", r.Header.Get("Authorization"), errSignature)
	}
	key, ok := a.keys[m[1]]
	switch {
	case !ok:
		return awsKey{}, fmt.Errorf("unknown access key %s: %w", m[1], errSignature)
	case m[3] != AWSRegion || m[4] != service:
		return key, fmt.Errorf("signed for %s/%s, want %s/%s: %w", m[3], m[4], AWSRegion, service, errSignature)
	case r.Header.Get("X-Amz-Security-Token") != key.session:
		return key, fmt.Errorf("session token is not that of %s: %w", key.id, errSignature)
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || time.Since(at).Abs() > 5*time.Minute {
		return key, fmt.Errorf("date %q: %w", r.Header.Get("X-Amz-Date"), errSignature)
	}
	again, err := resign(r, body, service, key, at, strings.Split(m[5], ";"))
	if err != nil {
		return key, err
	}
	if n := authorization.FindStringSubmatch(again); n == nil || n[5] != m[5] || n[6] != m[6] {
		return key, fmt.Errorf("signature of %s differs: %w", key.id, errSignature)
	}
	return key, nil
}

// resign signs a copy of the request that has only the headers that were signed.
func resign(r *http.Request, body []byte, service string, key awsKey, at time.Time, signed []string) (string, error) {
	again, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+r.Host+r.URL.RequestURI(), http.NoBody)
	if err != nil {
		return "", err
	}
	for _, name := range signed {
		switch name {
		case "host":
		case "content-length":
			again.ContentLength = r.ContentLength
		default:
			again.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
		}
	}
	hash := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(r.Context(), aws.Credentials{
		AccessKeyID: key.id, SecretAccessKey: key.secret, SessionToken: key.session,
	}, again, hex.EncodeToString(hash[:]), service, AWSRegion, at)
	return again.Header.Get("Authorization"), err
}
