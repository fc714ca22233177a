package upstream

import (
	"regexp"
	"strings"
)

// ecrHost matches the registry hosts of Amazon ECR in all partitions, FIPS
// and dual-stack included. It is the expression that AWS's own credential
// tools use; a port must be stripped first.
var ecrHost = regexp.MustCompile(`^(\d{12})\.dkr[\.\-]ecr(\-fips)?\.([a-zA-Z0-9][a-zA-Z0-9-_]*)\.(amazonaws\.(?:com(?:\.cn)?|eu)|on\.(?:aws|amazonwebservices\.com\.cn)|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

// ECRRegistry is what the host of an Amazon ECR registry tells.
type ECRRegistry struct {
	// Public is set for the public gallery, which has none of the rest.
	Public bool
	// Account is the AWS account that the registry belongs to: 12 digits.
	Account string
	// Region is the AWS region of the registry, whose API gives its tokens.
	Region string
	// FIPS and DualStack say which kind of endpoint the host is.
	FIPS, DualStack bool
}

// ParseECRHost takes a registry host (host[:port], lower case) apart. It
// reports false for a host that is not Amazon ECR's.
func ParseECRHost(host string) (ECRRegistry, bool) {
	name, _, _ := strings.Cut(host, ":")
	if name == "public.ecr.aws" || name == "ecr-public.aws.com" {
		return ECRRegistry{Public: true}, true
	}
	parts := ecrHost.FindStringSubmatch(name)
	if parts == nil {
		return ECRRegistry{}, false
	}
	return ECRRegistry{
		Account: parts[1], Region: parts[3],
		FIPS: parts[2] != "", DualStack: strings.HasPrefix(parts[4], "on."),
	}, true
}
