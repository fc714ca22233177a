package parts

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"time"
)

// serveIMDS is the instance metadata service, version 2: every question needs a
// token, which a PUT gives. The SDK asks for the region by the identity document
// or by the placement.
func (a *AWS) serveIMDS(w http.ResponseWriter, r *http.Request) {
	const meta = "/latest/meta-data/"
	op := ""
	switch {
	case r.URL.Path == "/latest/api/token":
		op = OpIMDSToken
	case strings.HasPrefix(r.URL.Path, meta+"iam/security-credentials"):
		op = OpIMDSRole
	case r.URL.Path == meta+"placement/region", r.URL.Path == "/latest/dynamic/instance-identity/document":
		op = OpIMDSRegion
	}
	a.mu.Lock()
	a.count[op]++
	fault := a.faults[op]
	a.mu.Unlock()
	switch fault {
	case AWSHang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case AWSThrottle:
		w.WriteHeader(http.StatusTooManyRequests)
	case AWSServerError:
		w.WriteHeader(http.StatusInternalServerError)
	case AWSAccessDenied:
		w.WriteHeader(http.StatusForbidden)
	default:
		a.answerIMDS(w, r)
	}
}

func (a *AWS) answerIMDS(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" {
		const header = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
		if r.Header.Get(header) == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		token := rand.Text() + rand.Text()
		a.sessions = append(a.sessions, token)
		w.Header().Set(header, r.Header.Get(header))
		_, _ = w.Write([]byte(token))
		return
	}
	if r.Method != http.MethodGet || !slices.Contains(a.sessions, r.Header.Get("X-Aws-Ec2-Metadata-Token")) {
		a.refused = append(a.refused, "imds: "+r.URL.Path+" without a session's token")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch strings.TrimSuffix(r.URL.Path, "/") {
	case "/latest/meta-data/iam/security-credentials":
		_, _ = w.Write([]byte("node"))
	case "/latest/meta-data/iam/security-credentials/node":
		now := time.Now().UTC()
		writeJSON(w, http.StatusOK, map[string]string{
			"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": now.Format(time.RFC3339),
			"AccessKeyId": a.role.id, "SecretAccessKey": a.role.secret, "Token": a.role.session,
			"Expiration": now.Add(6 * time.Hour).Format(time.RFC3339),
		})
	case "/latest/meta-data/placement/region":
		_, _ = w.Write([]byte(AWSRegion))
	case "/latest/dynamic/instance-identity/document":
		writeJSON(w, http.StatusOK, map[string]string{
			"accountId": AWSAccount, "region": AWSRegion, "availabilityZone": AWSRegion + "a", "instanceId": "i-0123456789abcdef0",
		})
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}
