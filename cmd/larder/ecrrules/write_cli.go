package ecrrules

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// writeCLI writes a call of AWS's command line for each rule.
func writeCLI(items []item) []byte {
	var b bytes.Buffer
	b.WriteString("# Pull through cache rules for the account and region of the AWS command line.\n")
	for _, it := range items {
		b.WriteByte('\n')
		for _, line := range it.comments() {
			fmt.Fprintf(&b, "# %s\n", line)
		}
		if it.left {
			continue
		}
		b.WriteString("aws ecr create-pull-through-cache-rule")
		for _, opt := range []struct{ name, value string }{
			{"ecr-repository-prefix", it.ECRRepositoryPrefix},
			{"upstream-registry-url", it.UpstreamRegistryURL},
			{"upstream-registry", it.UpstreamRegistry},
			{"upstream-repository-prefix", it.UpstreamRepositoryPrefix},
			{"credential-arn", it.CredentialARN},
			{"custom-role-arn", it.CustomRoleARN},
			{"registry-id", it.RegistryID},
		} {
			if opt.value != "" {
				fmt.Fprintf(&b, " \\\n  --%s %s", opt.name, shellQuote(opt.value))
			}
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// shellPlain is text that means itself to every POSIX shell, in any place but
// the first of a command.
var shellPlain = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,-]+$`)

// shellQuote makes one word of any text.
func shellQuote(s string) string {
	if shellPlain.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
