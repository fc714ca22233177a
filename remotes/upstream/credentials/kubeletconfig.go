package credentials

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"go.yaml.in/yaml/v3"
)

const (
	// The one version of the kubelet's plugin protocol that is not an alpha or
	// a beta, and its config file's.
	pluginVersion = "credentialprovider.kubelet.k8s.io/v1"
	configVersion = "kubelet.config.k8s.io/v1"
	configKind    = "CredentialProviderConfig"
	// maxKubeletConfig bounds the config file in bytes.
	maxKubeletConfig = 1 << 20
)

// kubeletConfig is what larder uses of the kubelet's CredentialProviderConfig.
// Its types are not imported: they bring Kubernetes' whole API machinery.
type kubeletConfig struct {
	Kind       string          `yaml:"kind"`
	APIVersion string          `yaml:"apiVersion"`
	Providers  []kubeletPlugin `yaml:"providers"`
}

type kubeletPlugin struct {
	Name                 string         `yaml:"name"`
	MatchImages          []string       `yaml:"matchImages"`
	DefaultCacheDuration *time.Duration `yaml:"defaultCacheDuration"`
	APIVersion           string         `yaml:"apiVersion"`
	Args                 []string       `yaml:"args"`
	Env                  []struct {
		Name  string `yaml:"name"`
		Value string `yaml:"value"`
	} `yaml:"env"`
	TokenAttributes map[string]any `yaml:"tokenAttributes"`
}

// loadKubelet reads a CredentialProviderConfig, YAML or JSON, and checks all
// of it, the plugins in binDir included. Plugins that want a service account's
// token are left out with a warning: a node's daemon pulls for no pod.
func loadKubelet(file, binDir string, log *reporter) ([]*plugin, error) {
	text, _, err := readFile(file, maxKubeletConfig)
	if err != nil {
		return nil, fmt.Errorf("kubelet_config %s: %w", file, err)
	}
	var config kubeletConfig
	if err := yaml.Unmarshal(text, &config); err != nil {
		// Not yaml's own words: env may hold secrets.
		return nil, fmt.Errorf("kubelet_config %s: not a %s: %w", file, configKind, errdefs.ErrInvalidArgument)
	}
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("kubelet_config %s: %s: %w", file, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument))
	}
	if config.Kind != configKind || config.APIVersion != configVersion {
		bad("is a %q of %q, want a %s of %s", cut(config.Kind), cut(config.APIVersion), configKind, configVersion)
	}
	if len(config.Providers) == 0 {
		bad("has no providers")
	}
	var plugins []*plugin
	seen := map[string]bool{}
	for i, k := range config.Providers {
		at := fmt.Sprintf("providers[%d] (%s)", i, cut(k.Name))
		if seen[k.Name] {
			bad("%s: the name stands twice", at)
		}
		seen[k.Name] = true
		if k.TokenAttributes != nil {
			log.log.Warn("kubelet credential provider not used: it wants the token of a pod's service account (tokenAttributes)", "provider", k.Name, "path", file)
			continue
		}
		p, problems := k.plugin(binDir, log)
		for _, text := range problems {
			bad("%s: %s", at, text)
		}
		plugins = append(plugins, p)
	}
	return plugins, errors.Join(errs...)
}

// plugin checks a provider; the texts say what is wrong with it.
func (k kubeletPlugin) plugin(binDir string, log *reporter) (p *plugin, problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	path := filepath.Join(binDir, k.Name)
	if k.Name == "" || k.Name == "." || k.Name == ".." || strings.ContainsAny(k.Name, "/\\ \t\n\x00") {
		bad("want the name of a file in kubelet_bin_dir")
	} else if _, err := exec.LookPath(path); err != nil {
		bad("%s is not there or cannot be executed", path)
	}
	if k.APIVersion != pluginVersion {
		bad("apiVersion is %q, want %s", cut(k.APIVersion), pluginVersion)
	}
	if k.DefaultCacheDuration == nil || *k.DefaultCacheDuration < 0 {
		bad("defaultCacheDuration must be set, and not below 0")
		k.DefaultCacheDuration = new(time.Duration)
	}
	if len(k.MatchImages) == 0 {
		bad("matchImages must be set")
	}
	var match []pattern
	for _, text := range k.MatchImages {
		m, err := parsePattern(text)
		if err != nil {
			bad("matchImages: %q is no image pattern", cut(text))
		}
		match = append(match, m)
	}
	var env []string
	for _, v := range k.Env {
		if v.Name == "" {
			bad("env: an entry has no name")
		}
		env = append(env, v.Name+"="+v.Value)
	}
	return newPlugin(k.Name, program{path: path, args: k.Args, env: env}, match, *k.DefaultCacheDuration, log), problems
}
