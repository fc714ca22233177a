package upstream

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// hideShown takes what a request showed of secrets out of the text that
// answers it: an upstream may repeat them, and the text ends up in logs.
func hideShown(req *http.Request, text []byte) []byte {
	for _, secret := range shownBy(req) {
		if secret != "" {
			text = bytes.ReplaceAll(text, []byte(secret), []byte("…"))
		}
	}
	return text
}

// shownBy are the secrets in a request.
func shownBy(req *http.Request) []string {
	var secrets []string
	if _, password, ok := req.BasicAuth(); ok {
		secrets = append(secrets, password)
	}
	if _, value, ok := strings.Cut(req.Header.Get("Authorization"), " "); ok {
		secrets = append(secrets, value)
	}
	if req.GetBody == nil {
		return secrets
	}
	body, err := req.GetBody()
	if err != nil {
		return secrets
	}
	defer body.Close()
	// The form is larder's own; what it got from strings.NewReader cannot
	// fail to be read.
	data, err := io.ReadAll(body)
	if err != nil {
		return secrets
	}
	form, err := url.ParseQuery(string(data))
	if err != nil {
		return secrets
	}
	return append(secrets, form.Get("password"), form.Get("refresh_token"))
}

// hideURLs leaves scheme and host of what looks like a URL.
func hideURLs(s string) string {
	words := strings.Fields(s)
	for i, w := range words {
		at := strings.Index(w, "://")
		if at < 0 {
			continue
		}
		rest := w[at+len("://"):]
		end := strings.IndexAny(rest, "/?#\"'")
		switch {
		case strings.Contains(rest, "@"): // a password may hold any of these signs
			words[i] = w[:at] + "://…"
		case end >= 0:
			words[i] = w[:at] + "://" + rest[:end] + "/…"
		}
	}
	return strings.Join(words, " ")
}
