package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"time"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

const (
	// helperPrefix begins the name of every docker credential helper.
	helperPrefix = "docker-credential-"
	// helperNothing is what one writes that knows nothing of a registry, and
	// tokenUser the user name that makes its secret an identity token.
	helperNothing = "credentials not found in native keychain"
	tokenUser     = "<token>"
)

// helperName keeps helpers on the PATH: a name with a slash would be a path.
var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// helper asks a docker credential helper. The oras package could, but without
// a bound for output, with the helper's standard error in larder's own log,
// and with its output in the error.
func (s *docker) helper(ctx context.Context, name, address string) (answer, error) {
	if !helperName.MatchString(name) {
		return answer{}, fmt.Errorf("docker_config %s: credential helper %q: want the part of its name after %s: %w", s.path, cut(name), helperPrefix, errdefs.ErrInvalidArgument)
	}
	cred, refuse, err := s.helpers.get(ctx, name+" "+address, func(ctx context.Context) (upstream.Credential, time.Duration, error) {
		cred, err := askHelper(ctx, helperPrefix+name, address)
		if err != nil {
			return cred, 0, fmt.Errorf("docker_config %s: %w", s.path, err)
		}
		if cred.IsZero() {
			return cred, nothingLife, nil
		}
		return cred, helperLife, nil
	})
	return answer{credential: cred, refuse: refuse}, err
}

// askHelper speaks docker's credential helper protocol.
func askHelper(ctx context.Context, name, address string) (upstream.Credential, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return upstream.Credential{}, fmt.Errorf("credential helper %s is not on larder's PATH: %w", name, errdefs.ErrNotFound)
	}
	out, err := program{path: path, args: []string{"get"}}.run(ctx, []byte(address))
	if err != nil {
		if string(bytes.TrimSpace(out)) == helperNothing {
			return upstream.Credential{}, nil
		}
		return upstream.Credential{}, fmt.Errorf("credential helper for %s: %w", address, err)
	}
	var said struct{ Username, Secret string }
	if err := json.Unmarshal(out, &said); err != nil {
		return upstream.Credential{}, fmt.Errorf("credential helper %s wrote no JSON for %s: %w", path, address, errdefs.ErrInvalidArgument)
	}
	if said.Username == tokenUser {
		said.Username = ""
	}
	if said.Secret == "" {
		return upstream.Credential{}, nil
	}
	return upstream.Credential{Username: said.Username, Secret: said.Secret}, nil
}
