package parts

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// jsonService is AWS's JSON protocol, version 1.1.
type jsonService struct{}

func (jsonService) fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Amzn-ErrorType", code)
	sendAWS(w, status, map[string]string{"__type": code, "message": message})
}

func sendAWS(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		panic(err) // a mistake in this package
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-Requestid", rand.Text())
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// ecrState is what ECR knows.
type ecrState struct {
	lifetime time.Duration
	tokens   map[string]*ecrToken // by password
	rules    []PullThroughCacheRule
	pageSize int
	invalid  map[string]string // prefix to the failure of its validation
}

// ecrToken is a password that GetAuthorizationToken gave.
type ecrToken struct {
	principal string
	revoked   bool
}

// PullThroughCacheRule is ECR's, with its JSON names.
type PullThroughCacheRule struct {
	EcrRepositoryPrefix      string  `json:"ecrRepositoryPrefix"`
	UpstreamRegistryURL      string  `json:"upstreamRegistryUrl"`
	UpstreamRegistry         string  `json:"upstreamRegistry,omitempty"`
	UpstreamRepositoryPrefix string  `json:"upstreamRepositoryPrefix,omitempty"`
	CredentialArn            string  `json:"credentialArn,omitempty"`
	CustomRoleArn            string  `json:"customRoleArn,omitempty"`
	RegistryID               string  `json:"registryId,omitempty"`
	CreatedAt                float64 `json:"createdAt,omitempty"`
}

// SetTokenLifetime sets expiresAt of tokens yet to be given, counted from then;
// below zero they are expired already. The registry takes them all the same,
// until RevokeTokens.
func (a *AWS) SetTokenLifetime(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ecr.lifetime = d
}

// RevokeTokens makes every token given so far an expired one.
func (a *AWS) RevokeTokens() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.ecr.tokens {
		t.revoked = true
	}
}

// SetRules replaces the pull through cache rules; a page of their list has at
// most pageSize of them, if that is not 0.
func (a *AWS) SetRules(pageSize int, rules ...PullThroughCacheRule) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ecr.rules, a.ecr.pageSize = slices.Clone(rules), pageSize
}

// Rules are the pull through cache rules, those that were created included.
func (a *AWS) Rules() []PullThroughCacheRule {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.ecr.rules)
}

// SetInvalid has the validation of a prefix fail for this reason.
func (a *AWS) SetInvalid(prefix, failure string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ecr.invalid = map[string]string{prefix: failure}
}

// token looks a password up for a registry.
func (a *AWS) token(password string) (principal string, known, good bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t, ok := a.ecr.tokens[password]
	if !ok {
		return "", false, false
	}
	return t.principal, true, !t.revoked
}

func (a *AWS) getAuthorizationToken(w http.ResponseWriter, key awsKey) {
	password := rand.Text() + rand.Text() + rand.Text()
	a.ecr.tokens[password] = &ecrToken{principal: key.principal}
	sendAWS(w, http.StatusOK, map[string]any{"authorizationData": []map[string]any{{
		"authorizationToken": base64.StdEncoding.EncodeToString([]byte("AWS:" + password)),
		"expiresAt":          epoch(time.Now().Add(a.ecr.lifetime)),
		"proxyEndpoint":      "https://" + ECRHost,
	}}})
}

func epoch(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// ruleRequest is what the three operations on rules are asked.
type ruleRequest struct {
	PullThroughCacheRule
	EcrRepositoryPrefixes []string
	MaxResults            int
	NextToken             string
}

func (a *AWS) describeRules(w http.ResponseWriter, body []byte) {
	var req ruleRequest
	if err := json.Unmarshal(body, &req); err != nil {
		jsonService{}.fail(w, http.StatusBadRequest, "SerializationException", err.Error())
		return
	}
	found := slices.DeleteFunc(slices.Clone(a.ecr.rules), func(r PullThroughCacheRule) bool {
		return len(req.EcrRepositoryPrefixes) > 0 && !slices.Contains(req.EcrRepositoryPrefixes, r.EcrRepositoryPrefix)
	})
	if len(found) < len(req.EcrRepositoryPrefixes) {
		jsonService{}.fail(w, http.StatusBadRequest, "PullThroughCacheRuleNotFoundException", "no such rule")
		return
	}
	begin := 0
	if req.NextToken != "" {
		var err error
		if begin, err = strconv.Atoi(req.NextToken); err != nil || begin > len(found) {
			jsonService{}.fail(w, http.StatusBadRequest, "InvalidParameterException", "nextToken")
			return
		}
	}
	size := 100
	if req.MaxResults > 0 {
		size = req.MaxResults
	}
	if a.ecr.pageSize > 0 {
		size = min(size, a.ecr.pageSize)
	}
	end := min(begin+size, len(found))
	answer := map[string]any{"pullThroughCacheRules": append([]PullThroughCacheRule{}, found[begin:end]...)}
	if end < len(found) {
		answer["nextToken"] = strconv.Itoa(end)
	}
	sendAWS(w, http.StatusOK, answer)
}

func (a *AWS) createRule(w http.ResponseWriter, body []byte) {
	var req ruleRequest
	if err := json.Unmarshal(body, &req); err != nil {
		jsonService{}.fail(w, http.StatusBadRequest, "SerializationException", err.Error())
		return
	}
	if a.find(req.EcrRepositoryPrefix) >= 0 {
		jsonService{}.fail(w, http.StatusBadRequest, "PullThroughCacheRuleAlreadyExistsException", "a rule for "+req.EcrRepositoryPrefix+" exists")
		return
	}
	rule := req.PullThroughCacheRule
	rule.RegistryID, rule.CreatedAt = AWSAccount, epoch(time.Now())
	a.ecr.rules = append(a.ecr.rules, rule)
	sendAWS(w, http.StatusOK, rule)
}

func (a *AWS) validateRule(w http.ResponseWriter, body []byte) {
	var req ruleRequest
	if err := json.Unmarshal(body, &req); err != nil {
		jsonService{}.fail(w, http.StatusBadRequest, "SerializationException", err.Error())
		return
	}
	i := a.find(req.EcrRepositoryPrefix)
	if i < 0 {
		jsonService{}.fail(w, http.StatusBadRequest, "PullThroughCacheRuleNotFoundException", "no rule for "+req.EcrRepositoryPrefix)
		return
	}
	failure, bad := a.ecr.invalid[req.EcrRepositoryPrefix]
	answer := struct {
		PullThroughCacheRule
		IsValid bool   `json:"isValid"`
		Failure string `json:"failure,omitempty"`
	}{a.ecr.rules[i], !bad, failure}
	sendAWS(w, http.StatusOK, answer)
}

func (a *AWS) find(prefix string) int {
	return slices.IndexFunc(a.ecr.rules, func(r PullThroughCacheRule) bool { return r.EcrRepositoryPrefix == prefix })
}
