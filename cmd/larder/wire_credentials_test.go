package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
)

// A rule's credential holds at its upstream, whichever name that has there,
// and below its upstream prefix; [credentials] is for all the rest.
func TestCredentialsOfRules(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, fmt.Appendf(nil, `{"username":%q,"accessToken":"t"}`, name), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	docker := filepath.Join(dir, "config.json")
	if err := os.WriteFile(docker, []byte(`{"auths":{"ghcr.io":{"username":"docker","password":"p"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	rules := append(remotes.BuiltinRules(),
		remotes.Rule{ECRRepositoryPrefix: "hub", UpstreamRegistryURL: "registry-1.docker.io", UpstreamRepositoryPrefix: remotes.Root, CredentialFile: secret("hub")},
		remotes.Rule{ECRRepositoryPrefix: "team", UpstreamRegistryURL: "docker.io", UpstreamRepositoryPrefix: "team/", CredentialFile: secret("team")},
	)
	creds, err := credentialsOf(rules, config.Credentials{DockerConfig: config.Path(docker)}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[[2]string]string{
		{"registry-1.docker.io", "library/nginx"}: "hub",
		{"docker.io", "team/app"}:                 "team",
		{"ghcr.io", "owner/app"}:                  "docker",
		{"quay.io", "team/app"}:                   "",
	} {
		got, err := creds.Credential(t.Context(), at[0], at[1])
		if err != nil || got.Username != want {
			t.Errorf("%v: got %v, %v, want %q", at, got, err, want)
		}
	}
}

func TestCredentialsThatCannotBe(t *testing.T) {
	t.Parallel()
	rule := remotes.Rule{ECRRepositoryPrefix: "hub", UpstreamRegistryURL: "docker.io", CredentialARN: "arn:aws:s3:::bucket"}
	_, err := credentialsOf([]remotes.Rule{rule}, config.Credentials{}, slog.New(slog.DiscardHandler))
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "credential_arn") {
		t.Errorf("got %v, want it to name credential_arn", err)
	}
}
