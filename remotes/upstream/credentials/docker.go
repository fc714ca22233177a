package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	oras "oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/larder-project/larder/remotes/upstream"
)

const (
	// maxDockerConfig bounds a docker config file in bytes.
	maxDockerConfig = 1 << 20
	// helperLife is for how long a credential helper's word holds: the
	// protocol has no expiry.
	helperLife = 15 * time.Minute
)

// docker is a docker config.json: its auths, and the credential helpers that
// it names. Like secret files it is read for each use.
type docker struct {
	path    string
	log     *reporter
	helpers *memory[upstream.Credential]
}

func newDocker(path string, log *reporter) *docker {
	return &docker{path: path, log: log, helpers: newMemory[upstream.Credential]("credential helper", programLimit, log)}
}

// find implements source. As docker does, it asks the helper of the registry,
// else the store of all registries, else the auths of the file.
func (s *docker) find(ctx context.Context, q query) (answer, error) {
	config, err := s.read()
	if errdefs.IsNotFound(err) {
		// Whoever logs in later writes it; what needs no login must not wait.
		s.log.warn("absent", "docker's credentials are not there: nobody has logged in, or docker_config names another file", "err", err)
		return answer{}, nil
	}
	if err != nil {
		return answer{}, err
	}
	addresses := serverAddresses(q.host)
	for _, address := range addresses {
		if name := config.Helpers[address]; name != "" {
			return s.helper(ctx, name, address)
		}
	}
	if config.Store != "" {
		return s.helper(ctx, config.Store, addresses[0])
	}
	return s.auths(ctx, q, addresses)
}

// dockerConfig is what larder itself reads of the file.
type dockerConfig struct {
	Store   string            `json:"credsStore"`
	Helpers map[string]string `json:"credHelpers"`
}

func (s *docker) read() (config dockerConfig, err error) {
	text, _, err := readFile(s.path, maxDockerConfig)
	if err != nil {
		return config, fmt.Errorf("docker_config %s: %w", s.path, err)
	}
	if err := json.Unmarshal(text, &config); err != nil && len(bytes.TrimSpace(text)) > 0 {
		// Not json's own words: they may repeat a piece of a secret.
		return config, fmt.Errorf("docker_config %s: not a docker config.json: %w", s.path, errdefs.ErrInvalidArgument)
	}
	return config, nil
}

// serverAddresses are the keys of a registry in docker's files, docker's own
// first.
func serverAddresses(host string) []string {
	if host == dockerHub {
		return []string{oras.ServerAddressFromRegistry(host), "index.docker.io", dockerHub, "registry-1.docker.io"}
	}
	return []string{host}
}

// auths looks into the file itself. oras reads it once more: it takes a path.
func (s *docker) auths(ctx context.Context, q query, addresses []string) (answer, error) {
	store, err := oras.NewFileStore(s.path)
	if err != nil {
		return answer{}, fmt.Errorf("docker_config %s: not a docker config.json: %w", s.path, errdefs.ErrInvalidArgument)
	}
	for _, address := range addresses {
		found, err := store.Get(ctx, address)
		switch {
		case err != nil:
			// Not oras' own words: they repeat the decoded secret.
			return answer{}, fmt.Errorf("docker_config %s: the entry for %s is not base64 of user:password: %w", s.path, address, errdefs.ErrInvalidArgument)
		case found.RefreshToken != "":
			return answer{credential: upstream.Credential{Secret: found.RefreshToken}}, nil
		case found.Password != "":
			return answer{credential: upstream.Credential{Username: found.Username, Secret: found.Password}}, nil
		case found.AccessToken != "":
			s.log.warn("registrytoken "+address, "docker_config has a registrytoken, which larder cannot use: it does not say when it ends", "upstream", q.host, "path", s.path)
		}
	}
	return answer{}, nil
}
