package ecrrules

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// writeCLI writes a call of AWS's command line for each rule and template.
func writeCLI(items []item, templates []templateItem) []byte {
	var b bytes.Buffer
	b.WriteString("# Pull through cache rules for the account and region of the AWS command line.\n")
	for _, it := range items {
		b.WriteByte('\n')
		writeComments(&b, it.notable)
		if it.left {
			continue
		}
		writeCall(&b, "create-pull-through-cache-rule", []option{
			{"ecr-repository-prefix", it.ECRRepositoryPrefix},
			{"upstream-registry-url", it.UpstreamRegistryURL},
			{"upstream-registry", it.UpstreamRegistry},
			{"upstream-repository-prefix", it.UpstreamRepositoryPrefix},
			{"credential-arn", it.CredentialARN},
			{"custom-role-arn", it.CustomRoleARN},
			{"registry-id", it.RegistryID},
		})
	}
	for _, it := range templates {
		b.WriteByte('\n')
		writeComments(&b, it.notable)
		if it.left {
			continue
		}
		filters := ""
		if len(it.ExclusionFilters) > 0 {
			text, _ := json.Marshal(it.ExclusionFilters) // texts: never fails
			filters = string(text)
		}
		writeCall(&b, "create-repository-creation-template", []option{
			{"prefix", it.Prefix},
			{"applied-for", pullThrough},
			{"image-tag-mutability", it.ImageTagMutability},
			{"image-tag-mutability-exclusion-filters", filters},
			{"lifecycle-policy", it.LifecyclePolicy},
		})
	}
	return b.Bytes()
}

// writeComments writes the notes for a file with comments: one line each,
// whatever is in them.
func writeComments(b *bytes.Buffer, n notable) {
	for _, line := range n.notes {
		fmt.Fprintf(b, "# %s\n", line)
	}
}

// option is an option of AWS's command line; one without a value is left away.
type option struct{ name, value string }

func writeCall(b *bytes.Buffer, verb string, options []option) {
	b.WriteString("aws ecr " + verb)
	for _, opt := range options {
		if opt.value != "" {
			fmt.Fprintf(b, " \\\n  --%s %s", opt.name, shellQuote(opt.value))
		}
	}
	b.WriteByte('\n')
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
