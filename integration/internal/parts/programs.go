package parts

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Program is an executable that gives credentials, and notes each call.
type Program struct {
	// Dir is the folder that it lies in, alone.
	Dir string
	// Name of its file.
	Name string
	log  string
}

// Each call is one line of the log: the arguments and what came on stdin. The
// answer is a file, so that it can change.
const programScript = `#!/bin/sh
input=$(cat | tr -d '\n')
printf '%%s\n' "$* $input" >> %[1]s
if [ -e %[2]s ]; then cat %[2]s >&2; exit 1; fi
cat %[3]s
`

func newProgram(dir, name, answer string) (*Program, error) {
	own, err := os.MkdirTemp(dir, "bin-")
	if err != nil {
		return nil, fmt.Errorf("program %s: %w", name, err)
	}
	p := &Program{Dir: filepath.Join(own, "bin"), Name: name, log: filepath.Join(own, "calls")}
	if err := os.Mkdir(p.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("program %s: %w", name, err)
	}
	script := fmt.Sprintf(programScript, p.log, p.failure(), p.answer())
	if err := WriteProgram(filepath.Join(p.Dir, name), script); err != nil {
		return nil, fmt.Errorf("program %s: %w", name, err)
	}
	return p, p.Answer(answer)
}

// WriteProgram writes a script that can be run at once: while it is open for writing
// nobody is forked, whose child would hold it open, too, and have it be "text file
// busy".
func WriteProgram(path, script string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(script), 0o700)
}

func (p *Program) answer() string  { return p.log + ".answer" }
func (p *Program) failure() string { return p.log + ".failure" }

// Answer changes what the program prints.
func (p *Program) Answer(text string) error {
	if err := os.WriteFile(p.answer(), []byte(text), 0o600); err != nil {
		return fmt.Errorf("program %s: %w", p.Name, err)
	}
	return nil
}

// Fail has the program print this to stderr and exit 1 from now on.
func (p *Program) Fail(text string) error {
	if err := os.WriteFile(p.failure(), []byte(text), 0o600); err != nil {
		return fmt.Errorf("program %s: %w", p.Name, err)
	}
	return nil
}

// Calls are the arguments and the input of each call so far.
func (p *Program) Calls() []string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return nil // nobody called it
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

// NewCredentialHelper makes docker-credential-<name>, which knows one user for
// every server. Its folder belongs into PATH.
func NewCredentialHelper(dir, name, user, secret string) (*Program, error) {
	answer, err := json.Marshal(map[string]string{"ServerURL": "", "Username": user, "Secret": secret})
	if err != nil {
		return nil, err
	}
	return newProgram(dir, "docker-credential-"+name, string(answer))
}

// CredentialProvider is a kubelet image credential provider with its
// configuration.
type CredentialProvider struct {
	*Program
	// Config is the path of the kubelet's CredentialProviderConfig.
	Config string
}

const providerConfig = `apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: %s
    matchImages:
      - %q
    defaultCacheDuration: "12h"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
`

// NewCredentialProvider makes a provider that gives one user for what
// matchImage matches, under the auth key of the host, for cacheDuration.
func NewCredentialProvider(dir, matchImage, host, cacheDuration, user, password string) (*CredentialProvider, error) {
	answer, err := json.Marshal(map[string]any{
		"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
		"cacheKeyType": "Registry", "cacheDuration": cacheDuration,
		"auth": map[string]any{host: map[string]string{"username": user, "password": password}},
	})
	if err != nil {
		return nil, err
	}
	p := &CredentialProvider{}
	if p.Program, err = newProgram(dir, "test-credential-provider", string(answer)); err != nil {
		return nil, err
	}
	p.Config = filepath.Join(filepath.Dir(p.Dir), "provider.yaml")
	if err := os.WriteFile(p.Config, fmt.Appendf(nil, providerConfig, p.Name, matchImage), 0o600); err != nil {
		return nil, fmt.Errorf("credential provider: %w", err)
	}
	return p, nil
}

// WriteDockerConfig writes a docker config.json into dir and returns its path.
// auths are base64 of user:password by registry, helpers the names of credential
// helpers by registry, identities are identity tokens by registry.
func WriteDockerConfig(dir string, auths, helpers, identities map[string]string) (string, error) {
	type entry struct {
		Auth          string `json:"auth,omitempty"`
		IdentityToken string `json:"identitytoken,omitempty"`
	}
	entries := map[string]entry{}
	for registry, auth := range auths {
		entries[registry] = entry{Auth: auth}
	}
	for registry, token := range identities {
		entries[registry] = entry{IdentityToken: token}
	}
	data, err := json.Marshal(map[string]any{"auths": entries, "credHelpers": helpers})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "docker-config.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return "", fmt.Errorf("docker config: %w", err)
	}
	return file, nil
}
