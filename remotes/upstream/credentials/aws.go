package credentials

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"github.com/containerd/errdefs"
)

const (
	// cloudLimit is how long a question to AWS may take, the SDK's repetitions
	// included.
	cloudLimit = 10 * time.Second
	// probeLimit is how long credentials are waited for from the instance's
	// metadata service, which on most machines outside AWS is not there.
	probeLimit = 3 * time.Second
	// maxBackoff is the longest pause before AWS, or the metadata service, is
	// asked again after a failure.
	maxBackoff = 300 * time.Millisecond
	// maxCloudAnswer bounds an answer of AWS in bytes.
	maxCloudAnswer = 1 << 20
	// leastLife is for how long a token is kept that seems to have expired
	// already: then this machine's clock is wrong.
	leastLife = time.Minute
)

// cloud has the configuration for AWS: larder's own identity there.
type cloud struct {
	load func(context.Context) (aws.Config, error)

	mu     sync.Mutex
	loaded *aws.Config
}

// loadAWS loads the configuration as AWS's own tools do.
func loadAWS(ctx context.Context) (aws.Config, error) {
	return config.LoadDefaultConfig(ctx,
		config.WithAppID("larder"),
		config.WithLogger(logging.Nop{}), // else it writes to standard error
		config.WithRetryer(func() aws.Retryer {
			// The SDK's own pauses of up to 20 s go beyond all limits here.
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.MaxBackoff = maxBackoff
				o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(nobodyThere)}, o.Retryables...)
			})
		}))
}

// nobodyThere keeps the SDK from knocking for seconds where nothing listens:
// that is how most machines outside AWS say that there is no metadata service.
func nobodyThere(err error) aws.Ternary {
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

// config loads the configuration, and checks that there are credentials: if
// not, the error is a *noneError.
func (c *cloud) config(ctx context.Context) (aws.Config, error) {
	cfg, err := c.current(ctx)
	if err != nil {
		return aws.Config{}, fmt.Errorf("AWS configuration (environment, ~/.aws): %w", cloudError(err))
	}
	return cfg, haveCredentials(ctx, cfg)
}

func (c *cloud) current(ctx context.Context) (aws.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded != nil {
		return c.loaded.Copy(), nil
	}
	cfg, err := c.load(ctx)
	if err != nil {
		return aws.Config{}, err
	}
	if cfg.HTTPClient != nil {
		cfg.HTTPClient = boundedClient{cfg.HTTPClient}
	}
	c.loaded = &cfg
	return cfg.Copy(), nil
}

// forget has the next config load anew: keys that AWS refused may have been
// replaced in their file.
func (c *cloud) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loaded = nil
}

// haveCredentials tells no credentials at all from those that fail.
func haveCredentials(ctx context.Context, cfg aws.Config) error {
	if cfg.Credentials == nil || aws.IsCredentialsProvider(cfg.Credentials, aws.AnonymousCredentials{}) {
		return &noneError{"no AWS credentials"}
	}
	onlyInstance := false
	if of, ok := cfg.Credentials.(aws.CredentialProviderSource); ok {
		// This is where the SDK ends up if nothing is configured.
		onlyInstance = slices.Equal(of.ProviderSources(), []aws.CredentialSource{aws.CredentialSourceIMDS})
	}
	if onlyInstance {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, probeLimit)
		defer cancel()
	}
	_, err := cfg.Credentials.Retrieve(ctx)
	switch {
	case err == nil:
		return nil
	case onlyInstance:
		return &noneError{"no AWS credentials in environment or files, and no role from the instance's metadata service"}
	}
	return fmt.Errorf("AWS credentials: %w", cloudError(err))
}

// assume is the configuration with a role's credentials in place of larder's.
func assume(cfg aws.Config, role string) aws.Config {
	provider := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), role, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = "larder"
	})
	cfg.Credentials = aws.NewCredentialsCache(provider)
	return cfg
}

// cloudError makes one bounded line of an SDK's error, and gives it a kind.
// What AWS itself said is repeated; what else may be in such an error (the
// output of a credential_process, URLs) is not.
func cloudError(err error) error {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		var kind error = errdefs.ErrUnavailable
		switch api.ErrorCode() {
		case "AccessDenied", "AccessDeniedException", "UnrecognizedClientException", "InvalidClientTokenId",
			"ExpiredToken", "ExpiredTokenException", "InvalidSignatureException", "SignatureDoesNotMatch":
			kind = errdefs.ErrPermissionDenied
		case "ResourceNotFoundException":
			kind = errdefs.ErrNotFound
		}
		return fmt.Errorf("AWS answered %s: %s: %w", line(api.ErrorCode()), line(api.ErrorMessage()), kind)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("AWS did not answer in time: %w: %w", context.DeadlineExceeded, errdefs.ErrUnavailable)
	}
	op := "its SDK failed"
	if oe, ok := errors.AsType[*smithy.OperationError](err); ok {
		op = fmt.Sprintf("%s %s could not be asked", oe.Service(), oe.Operation())
	}
	return fmt.Errorf("AWS: %s, check network, region and credentials: %w", op, errdefs.ErrUnavailable)
}

// line makes one short line of text from a network.
func line(s string) string {
	const most = 300
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// boundedClient bounds the answers of an HTTP client.
type boundedClient struct{ aws.HTTPClient }

// Do implements aws.HTTPClient.
func (c boundedClient) Do(req *http.Request) (*http.Response, error) {
	resp, err := c.HTTPClient.Do(req)
	if err != nil {
		return resp, err
	}
	resp.Body = boundedBody{io.LimitReader(resp.Body, maxCloudAnswer), resp.Body}
	return resp, nil
}

type boundedBody struct {
	io.Reader
	io.Closer
}
