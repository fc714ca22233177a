package ecrrules

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
)

// writeTerraform writes a resource for each rule, as terraform fmt would lay
// it out.
func writeTerraform(items []item) []byte {
	var b bytes.Buffer
	b.WriteString("# Pull through cache rules for the account and region of the provider.\n")
	labels := unique{}
	for _, it := range items {
		b.WriteByte('\n')
		for _, line := range it.comments() {
			fmt.Fprintf(&b, "# %s\n", line)
		}
		if it.left {
			continue
		}
		fmt.Fprintf(&b, "resource \"aws_ecr_pull_through_cache_rule\" %s {\n", hclQuote(labels.next(terraformName(it.ECRRepositoryPrefix), "_")))
		args := [][2]string{
			{"ecr_repository_prefix", it.ECRRepositoryPrefix},
			{"upstream_registry_url", it.UpstreamRegistryURL},
			{"upstream_repository_prefix", it.UpstreamRepositoryPrefix},
			{"credential_arn", it.CredentialARN},
			{"custom_role_arn", it.CustomRoleARN},
		}
		width := 0
		for _, a := range args {
			if a[1] != "" {
				width = max(width, len(a[0]))
			}
		}
		for _, a := range args {
			if a[1] != "" {
				fmt.Fprintf(&b, "  %-*s = %s\n", width, a[0], hclQuote(a[1]))
			}
		}
		b.WriteString("}\n")
	}
	return b.Bytes()
}

// terraformName makes a resource name of a prefix.
func terraformName(prefix string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(strings.TrimSuffix(prefix, "/")))
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		return "_" + name
	}
	return name
}

// unique counts names, so that no two are the same.
type unique map[string]bool

// next returns a name that was not given yet.
func (u unique) next(name, separator string) string {
	out := name
	for n := 2; u[out]; n++ {
		out = fmt.Sprintf("%s%s%d", name, separator, n)
	}
	u[out] = true
	return out
}

// hclQuote makes a quoted template without templates in it (HCL native syntax
// specification, "Template Expressions").
func hclQuote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	runes := []rune(s)
	for i, r := range runes {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case (r == '$' || r == '%') && i+1 < len(runes) && runes[i+1] == '{':
			b.WriteRune(r)
			b.WriteRune(r)
		case !unicode.IsPrint(r) && r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
