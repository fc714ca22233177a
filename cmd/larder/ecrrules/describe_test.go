package ecrrules

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

// account stands in for ECR: JSON 1.1 over HTTP. page answers by the token of
// the request, "" for the first.
func account(t *testing.T, page func(w http.ResponseWriter, token string)) aws.Config {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if op := r.Header.Get("X-Amz-Target"); op != "AmazonEC2ContainerRegistry_V20150921.DescribePullThroughCacheRules" {
			t.Errorf("asked for %s", op)
		}
		if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKIATEST/") {
			t.Errorf("not signed: %q", r.Header.Get("Authorization"))
		}
		var in struct{ NextToken string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		page(w, in.NextToken)
	}))
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		srv.Close()
	})
	return aws.Config{
		Region: "eu-central-1", BaseEndpoint: &srv.URL, HTTPClient: &http.Client{Transport: transport},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIATEST", SecretAccessKey: "hunter2"}, nil
		}),
		Retryer: func() aws.Retryer { return aws.NopRetryer{} },
	}
}

func TestDescribePages(t *testing.T) {
	t.Parallel()
	var first, second map[string]any
	var doc struct{ PullThroughCacheRules []any }
	if err := json.Unmarshal([]byte(described), &doc); err != nil {
		t.Fatal(err)
	}
	for _, r := range doc.PullThroughCacheRules { // seconds on the wire, text on the command line
		delete(r.(map[string]any), "createdAt")
		r.(map[string]any)["updatedAt"] = 1793523600.123
	}
	first = map[string]any{"pullThroughCacheRules": doc.PullThroughCacheRules[:1], "nextToken": "page 2"}
	second = map[string]any{"pullThroughCacheRules": doc.PullThroughCacheRules[1:]}
	var tokens []string
	cfg := account(t, func(w http.ResponseWriter, token string) {
		tokens = append(tokens, token)
		answer := first
		if token == "page 2" {
			answer = second
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	})
	got, err := Describe(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(describedRules(), got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"", "page 2"}, tokens); diff != "" {
		t.Error(diff)
	}
}

func TestDescribeRefuses(t *testing.T) {
	t.Parallel()
	n := 0
	for name, tc := range map[string]struct {
		page func(w http.ResponseWriter, token string)
		kind func(error) bool
		want string
	}{
		"denied": {
			func(w http.ResponseWriter, _ string) {
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprint(w, `{"__type":"AccessDeniedException","message":"User: arn:aws:sts::1:x is not authorized"}`)
			}, errdefs.IsPermissionDenied, "AccessDeniedException",
		},
		"server error": {
			func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusInternalServerError) },
			errdefs.IsUnavailable, "eu-central-1",
		},
		"no JSON": {func(w http.ResponseWriter, _ string) { fmt.Fprint(w, "<html>") }, errdefs.IsUnavailable, "eu-central-1"},
		"too large": {
			func(w http.ResponseWriter, _ string) { fmt.Fprint(w, `{"x":"`+strings.Repeat("x", maxInput)+`"}`) },
			errdefs.IsUnavailable, "larger than 4 MiB",
		},
		"too many": {
			func(w http.ResponseWriter, token string) {
				fmt.Fprint(w, strings.TrimSuffix(strings.ReplaceAll(entries(200), `:"p`, `:"q`+token), "}")+`,"nextToken":"`+token+`x"}`)
			}, errdefs.IsInvalidArgument, "want at most 1000",
		},
		"pages without end": {
			func(w http.ResponseWriter, _ string) {
				n++
				fmt.Fprintf(w, `{"pullThroughCacheRules":[],"nextToken":"%d"}`, n)
			}, errdefs.IsInvalidArgument, "more than 100 pages",
		},
		"invalid rule": {
			func(w http.ResponseWriter, _ string) {
				fmt.Fprint(w, `{"pullThroughCacheRules":[{"ecrRepositoryPrefix":"a1\nmode = 1","upstreamRegistryUrl":"quay.io"}]}`)
			}, errdefs.IsInvalidArgument, `pullThroughCacheRules[0] ("a1\nmode = 1")`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			got, err := Describe(ctx, account(t, tc.page))
			if err == nil || !tc.kind(err) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, %v, want %q", got, err, tc.want)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDescribeWithoutRegion(t *testing.T) {
	t.Parallel()
	if _, err := Describe(t.Context(), aws.Config{}); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "--region") {
		t.Errorf("got %v", err)
	}
}
