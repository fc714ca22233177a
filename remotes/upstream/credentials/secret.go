package credentials

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

// maxSecret bounds a secret in bytes: what AWS Secrets Manager takes.
const maxSecret = 64 << 10

// parseSecret reads a secret as ECR's rules keep it. Its errors repeat nothing
// of the text, and neither do they pass on those of package json, which do.
func parseSecret(text []byte) (upstream.Credential, error) {
	var s struct {
		Username    string `json:"username"`
		AccessToken string `json:"accessToken"`
	}
	switch err := json.Unmarshal(text, &s); {
	case len(text) > maxSecret:
		return upstream.Credential{}, fmt.Errorf("more than %d bytes: %w", maxSecret, errdefs.ErrInvalidArgument)
	case err != nil:
		return upstream.Credential{}, fmt.Errorf(`not JSON, want {"username":"…","accessToken":"…"}: %w`, errdefs.ErrInvalidArgument)
	case s.Username == "" || s.AccessToken == "":
		return upstream.Credential{}, fmt.Errorf(`no username or no accessToken in it, want {"username":"…","accessToken":"…"}: %w`, errdefs.ErrInvalidArgument)
	}
	return upstream.Credential{Username: s.Username, Secret: s.AccessToken}, nil
}
