package parts

import (
	"encoding/json"
	"encoding/xml"
	"net/http"
	"strings"
	"time"
)

// AddSecret puts a secret into Secrets Manager and returns its ARN.
func (a *AWS) AddSecret(name, text string) (arn string) {
	arn = "arn:aws:secretsmanager:" + AWSRegion + ":" + AWSAccount + ":secret:" + name + "-AbCdEf"
	a.SetSecret(arn, text)
	return arn
}

// SetSecret changes a secret.
func (a *AWS) SetSecret(arn, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.secrets[arn] = text
}

func (a *AWS) getSecretValue(w http.ResponseWriter, body []byte) {
	var req struct{ SecretId string } //nolint:revive // the name of AWS
	if err := json.Unmarshal(body, &req); err != nil {
		jsonService{}.fail(w, http.StatusBadRequest, "SerializationException", err.Error())
		return
	}
	text, ok := a.secrets[req.SecretId]
	if !ok {
		jsonService{}.fail(w, http.StatusBadRequest, "ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
		return
	}
	name := req.SecretId[strings.LastIndexByte(req.SecretId, ':')+1:]
	sendAWS(w, http.StatusOK, map[string]any{
		"ARN": req.SecretId, "Name": strings.TrimSuffix(name, "-AbCdEf"), "SecretString": text,
		"VersionId": "EXAMPLE1-90ab-cdef-fedc-ba987EXAMPLE", "VersionStages": []string{"AWSCURRENT"}, "CreatedDate": epoch(time.Now()),
	})
}

// queryService is AWS's query protocol: forms in, XML out.
type queryService struct{}

func (queryService) fail(w http.ResponseWriter, status int, code, message string) {
	type failure struct {
		Type, Code, Message string
	}
	sendXML(w, status, struct {
		XMLName   xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
		Error     failure
		RequestID string `xml:"RequestId"`
	}{Error: failure{Type: "Sender", Code: code, Message: message}, RequestID: "stand-in"})
}

func sendXML(w http.ResponseWriter, status int, body any) {
	data, err := xml.Marshal(body)
	if err != nil {
		panic(err) // a mistake in this package
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// AllowRole lets a role be assumed by everybody who signs.
func (a *AWS) AllowRole(arn string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.roles[arn] = true
}

func (a *AWS) assumeRole(w http.ResponseWriter, r *http.Request) {
	arn, session := r.PostForm.Get("RoleArn"), r.PostForm.Get("RoleSessionName")
	if !a.roles[arn] || session == "" {
		queryService{}.fail(w, http.StatusForbidden, "AccessDenied", "not authorized to perform: sts:AssumeRole on "+arn)
		return
	}
	key := a.newKey("ASIA", arn, true)
	type credentials struct {
		AccessKeyID     string `xml:"AccessKeyId"`
		SecretAccessKey string
		SessionToken    string
		Expiration      string
	}
	type result struct {
		Credentials  credentials
		AssumedRoles struct{ Arn, AssumedRoleId string } `xml:"AssumedRoleUser"` //nolint:revive // the name of AWS
	}
	answer := struct {
		XMLName xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ AssumeRoleResponse"`
		Result  result   `xml:"AssumeRoleResult"`
	}{Result: result{Credentials: credentials{key.id, key.secret, key.session, time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}}}
	answer.Result.AssumedRoles.Arn = arn + "/" + session
	answer.Result.AssumedRoles.AssumedRoleId = "AROA:" + session
	sendXML(w, http.StatusOK, answer)
}
