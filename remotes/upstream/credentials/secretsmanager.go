package credentials

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/larder-project/larder/remotes/upstream"
)

// secretLife is for how long a secret of AWS Secrets Manager holds.
const secretLife = time.Hour

// secrets are the secrets in AWS Secrets Manager that rules name.
type secrets struct {
	rules  rules
	cloud  *cloud
	memory *memory[upstream.Credential]
}

func newSecrets(rs rules, c *cloud, log *reporter) *secrets {
	return &secrets{rules: rs, cloud: c, memory: newMemory[upstream.Credential]("credential_arn", cloudLimit, log)}
}

// find implements source.
func (s *secrets) find(ctx context.Context, q query) (answer, error) {
	id := s.rules.match(q).ARN
	if id == "" {
		return answer{}, nil
	}
	cred, refuse, err := s.memory.get(ctx, id, func(ctx context.Context) (upstream.Credential, time.Duration, error) {
		cred, err := s.ask(ctx, id)
		if err != nil {
			s.cloud.forget()
			return cred, 0, fmt.Errorf("credential_arn %s: %w", id, err)
		}
		return cred, secretLife, nil
	})
	return answer{credential: cred, refuse: refuse}, err
}

func (s *secrets) ask(ctx context.Context, id string) (upstream.Credential, error) {
	cfg, err := s.cloud.config(ctx)
	if err != nil {
		return upstream.Credential{}, err
	}
	cfg.Region = regionOf(id)
	out, err := secretsmanager.NewFromConfig(cfg).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &id})
	if err != nil {
		return upstream.Credential{}, fmt.Errorf("GetSecretValue: %w", cloudError(err))
	}
	return parseSecret([]byte(aws.ToString(out.SecretString)))
}
