package main

import (
	"log/slog"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/larder-project/larder/remotes/upstream/credentials"
)

// credentialsOf wires what finds credentials for upstreams: those of rules,
// which hold below the rule's prefix at its upstream, and the sources of the
// table [credentials].
func credentialsOf(rules []remotes.Rule, cfg config.Credentials, logger *slog.Logger) (upstream.Credentials, error) {
	o := credentials.Options{
		DockerConfig:  string(cfg.DockerConfig),
		KubeletConfig: string(cfg.KubeletConfig),
		KubeletBinDir: string(cfg.KubeletBinDir),
		ECR:           cfg.ECR,
		Logger:        logger,
	}
	for _, r := range rules {
		if r.CredentialFile == "" && r.CredentialARN == "" && r.CustomRoleARN == "" {
			continue
		}
		prefix := r.UpstreamRepositoryPrefix
		if prefix == remotes.Root {
			prefix = ""
		}
		o.Rules = append(o.Rules, credentials.Rule{
			Host: r.UpstreamRegistryURL, Prefix: prefix,
			File: r.CredentialFile, ARN: r.CredentialARN, RoleARN: r.CustomRoleARN,
		})
	}
	chain, err := credentials.New(o)
	if err != nil {
		return nil, eachPrefixed("credentials", err)
	}
	return chain, nil
}
