package credentials

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/containerd/errdefs"
)

// Options of a Chain. With the zero value it knows no credential.
type Options struct {
	// Rules name credentials of single upstreams. They come before all else.
	Rules []Rule
	// DockerConfig is the absolute path of a docker config.json. Empty: none.
	DockerConfig string
	// KubeletConfig is the absolute path of the kubelet's
	// CredentialProviderConfig, YAML or JSON, and KubeletBinDir that of the
	// folder with the plugins it names. Empty: none.
	KubeletConfig, KubeletBinDir string
	// ECR says whether tokens for Amazon ECR are got with the node's own AWS
	// credentials.
	ECR bool
	// AWS loads the configuration for AWS. Nil: as AWS's own tools do, from
	// environment, files and instance metadata, when it is first needed.
	AWS func(context.Context) (aws.Config, error)
	// Logger takes what no caller is told: failures that were made good. Nil
	// discards it.
	Logger *slog.Logger
}

// New makes a Chain. It checks all that can be checked without a network and
// without secrets, and reports every problem, wrapping
// errdefs.ErrInvalidArgument or ErrNotFound. Secret files and docker's config
// may come later: that they are missing is only logged.
func New(o Options) (*Chain, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.AWS == nil {
		o.AWS = loadAWS
	}
	log := newReporter(o.Logger)
	rs, err := newRules(o.Rules)
	errs := []error{err}
	c := &cloud{load: o.AWS}
	tokens, files := newTokens(c, log), newFiles(rs, log)
	links := []link{
		{source: files, explicit: true},
		{source: newSecrets(rs, c, log), explicit: true},
		{source: &roles{rs, tokens}, explicit: true},
	}
	for _, add := range []func(*reporter) (link, error){o.docker, o.kubelet} {
		l, err := add(log)
		errs = append(errs, err)
		if l.source != nil {
			links = append(links, l)
		}
	}
	if o.ECR {
		links = append(links, link{source: &node{tokens, log}})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	files.tellMissing()
	return newChain(log, links...), nil
}

// docker returns no link if there is no such file configured.
func (o Options) docker(log *reporter) (link, error) {
	if o.DockerConfig == "" {
		return link{}, nil
	}
	if err := absolute("docker_config", o.DockerConfig); err != nil {
		return link{}, err
	}
	s := newDocker(o.DockerConfig, log)
	if _, err := s.read(); err != nil {
		log.log.Warn("docker's credentials cannot be read yet", "err", err)
	}
	return link{source: s}, nil
}

// kubelet returns no link if there are no plugins configured.
func (o Options) kubelet(log *reporter) (link, error) {
	if o.KubeletConfig == "" && o.KubeletBinDir == "" {
		return link{}, nil
	}
	if err := errors.Join(absolute("kubelet_config", o.KubeletConfig), absolute("kubelet_bin_dir", o.KubeletBinDir)); err != nil {
		return link{}, err
	}
	plugins, err := loadKubelet(o.KubeletConfig, o.KubeletBinDir, log)
	return link{source: &kubelet{plugins, log}}, err
}

func absolute(key, path string) error {
	if filepath.IsAbs(path) {
		return nil
	}
	return fmt.Errorf("%s: %q: want an absolute path: %w", key, path, errdefs.ErrInvalidArgument)
}
