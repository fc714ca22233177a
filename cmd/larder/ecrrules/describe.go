package ecrrules

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes"
)

// loadTimeout bounds the wait for an instance's metadata service, which
// elsewhere nobody may refuse.
const loadTimeout = 10 * time.Second

// describeTimeout bounds all requests of one Describe.
const describeTimeout = time.Minute

// maxPages bounds a list whose pages are empty.
const maxPages = 100

// LoadAWS finds region and credentials as every AWS program does: environment,
// shared files, container, instance. Empty arguments leave it to these.
func LoadAWS(ctx context.Context, region, profile string) (aws.Config, error) {
	opts := []func(*config.LoadOptions) error{
		config.WithEC2IMDSRegion(),
		config.WithLogger(logging.Nop{}), // what matters is in the errors
	}
	if region != "" {
		opts = append(opts, config.WithRegion(region))
	}
	if profile != "" {
		opts = append(opts, config.WithSharedConfigProfile(profile))
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	switch _, noProfile := errors.AsType[config.SharedConfigProfileNotExistError](err); {
	case err != nil && region == "" && !noProfile:
		return aws.Config{}, fmt.Errorf("AWS configuration: %w; if this is no EC2 instance, give --region or set AWS_REGION: %w", err, errdefs.ErrFailedPrecondition)
	case err != nil:
		return aws.Config{}, fmt.Errorf("AWS configuration: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return cfg, nil
}

// Describe asks an AWS account for its rules, of one region.
func Describe(ctx context.Context, cfg aws.Config) ([]remotes.Rule, error) {
	if cfg.Region == "" {
		return nil, fmt.Errorf("no AWS region is known: give --region, or set AWS_REGION: %w", errdefs.ErrFailedPrecondition)
	}
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	if cfg.Credentials == nil {
		return nil, fmt.Errorf("no AWS credentials are known: %w", errdefs.ErrFailedPrecondition)
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		return nil, fmt.Errorf("no AWS credentials: %w; give --profile, set AWS_ACCESS_KEY_ID, or give this instance a role: %w", err, errdefs.ErrFailedPrecondition)
	}
	client := ecr.NewFromConfig(cfg, func(o *ecr.Options) { o.HTTPClient = boundedClient{o.HTTPClient} })
	pages := ecr.NewDescribePullThroughCacheRulesPaginator(client, &ecr.DescribePullThroughCacheRulesInput{},
		func(o *ecr.DescribePullThroughCacheRulesPaginatorOptions) { o.StopOnDuplicateToken = true })
	var entries []Entry
	for n := 0; pages.HasMorePages(); n++ {
		if n == maxPages {
			return nil, invalid("the rules of region %s are more than %d pages", cfg.Region, maxPages)
		}
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("rules of region %s: %w", cfg.Region, awsError(err))
		}
		for _, r := range page.PullThroughCacheRules {
			entries = append(entries, entryOfAWS(r))
		}
		if len(entries) > maxRules {
			return nil, tooMany(len(entries))
		}
	}
	return rulesOf(entries)
}

func entryOfAWS(r types.PullThroughCacheRule) Entry {
	return Entry{
		ECRRepositoryPrefix:      aws.ToString(r.EcrRepositoryPrefix),
		UpstreamRegistryURL:      aws.ToString(r.UpstreamRegistryUrl),
		UpstreamRegistry:         string(r.UpstreamRegistry),
		UpstreamRepositoryPrefix: aws.ToString(r.UpstreamRepositoryPrefix),
		CredentialARN:            aws.ToString(r.CredentialArn),
		CustomRoleARN:            aws.ToString(r.CustomRoleArn),
		RegistryID:               aws.ToString(r.RegistryId),
	}
}

// awsError says what AWS said, without the layers of its client.
func awsError(err error) error {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
	}
	text := fmt.Sprintf("AWS answered %.60q: %.500q", api.ErrorCode(), api.ErrorMessage())
	switch api.ErrorCode() {
	case "AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException":
		return fmt.Errorf("%s; it takes ecr:DescribePullThroughCacheRules: %w", text, errdefs.ErrPermissionDenied)
	}
	return fmt.Errorf("%s: %w", text, errdefs.ErrUnavailable)
}

// boundedClient bounds the answers that AWS's client reads into memory.
type boundedClient struct{ ecr.HTTPClient }

// Do implements ecr.HTTPClient.
func (b boundedClient) Do(req *http.Request) (*http.Response, error) {
	resp, err := b.HTTPClient.Do(req)
	if err == nil {
		resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxInput}
	}
	return resp, err
}

// boundedBody fails a body that is too long; it does not cut it.
type boundedBody struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, invalid("the answer is larger than %d MiB", maxInput>>20)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left+1)])
	if b.left -= n; b.left < 0 {
		return 0, invalid("the answer is larger than %d MiB", maxInput>>20)
	}
	return n, err
}
