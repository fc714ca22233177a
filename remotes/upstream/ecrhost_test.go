package upstream

import "testing"

func TestParseECRHost(t *testing.T) {
	t.Parallel()
	private := func(region string, fips, dual bool) ECRRegistry {
		return ECRRegistry{Account: "123456789012", Region: region, FIPS: fips, DualStack: dual}
	}
	for host, want := range map[string]ECRRegistry{
		"123456789012.dkr.ecr.eu-central-1.amazonaws.com":             private("eu-central-1", false, false),
		"123456789012.dkr.ecr.eu-central-1.amazonaws.com:443":         private("eu-central-1", false, false),
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com":       private("us-gov-west-1", true, false),
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":            private("cn-north-1", false, false),
		"123456789012.dkr-ecr.us-east-1.on.aws":                       private("us-east-1", false, true),
		"123456789012.dkr-ecr-fips.us-east-1.on.aws":                  private("us-east-1", true, true),
		"123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn": private("cn-north-1", false, true),
		"123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov":               private("us-iso-east-1", false, false),
		"123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov":           private("us-isob-east-1", false, false),
		"123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk":          private("eu-isoe-west-1", false, false),
		"123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov":         private("us-isof-south-1", false, false),
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu":            private("eusc-de-east-1", false, false),
		"public.ecr.aws":         {Public: true},
		"ecr-public.aws.com:443": {Public: true},
	} {
		if got, ok := ParseECRHost(host); !ok || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", host, got, ok, want)
		}
	}
	for _, host := range []string{
		"", "docker.io", "12345678901.dkr.ecr.us-east-1.amazonaws.com", "123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.io",
		"evil.io/123456789012.dkr.ecr.us-east-1.amazonaws.com", "x.public.ecr.aws", "123456789012.dkr.ecr.us-east-1.amazonaws.com\n",
	} {
		if got, ok := ParseECRHost(host); ok {
			t.Errorf("%q: got %+v, want none", host, got)
		}
	}
}
