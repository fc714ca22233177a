package ecrrules

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
)

// writeTerraform writes a resource for each rule and template, as terraform fmt would lay
// it out.
func writeTerraform(items []item, templates []templateItem) []byte {
	var b bytes.Buffer
	b.WriteString("# Pull through cache rules for the account and region of the provider.\n")
	labels := unique{}
	for _, it := range items {
		b.WriteByte('\n')
		writeComments(&b, it.notable)
		if it.left {
			continue
		}
		fmt.Fprintf(&b, "resource \"aws_ecr_pull_through_cache_rule\" %s {\n", hclQuote(labels.next(terraformName(it.ECRRepositoryPrefix), "_")))
		writeArguments(&b, [][2]string{
			{"ecr_repository_prefix", hclText(it.ECRRepositoryPrefix)},
			{"upstream_registry_url", hclText(it.UpstreamRegistryURL)},
			{"upstream_repository_prefix", hclText(it.UpstreamRepositoryPrefix)},
			{"credential_arn", hclText(it.CredentialARN)},
			{"custom_role_arn", hclText(it.CustomRoleARN)},
		})
		b.WriteString("}\n")
	}
	labels = unique{} // of another type of resource
	for _, it := range templates {
		b.WriteByte('\n')
		writeComments(&b, it.notable)
		if it.left {
			continue
		}
		fmt.Fprintf(&b, "resource \"aws_ecr_repository_creation_template\" %s {\n", hclQuote(labels.next(terraformName(it.Prefix), "_")))
		writeArguments(&b, [][2]string{
			{"prefix", hclText(it.Prefix)},
			{"applied_for", "[" + hclQuote(pullThrough) + "]"},
			{"image_tag_mutability", hclText(it.ImageTagMutability)},
			{"lifecycle_policy", hclText(it.LifecyclePolicy)},
		})
		for _, f := range it.ExclusionFilters {
			fmt.Fprintf(&b, "\n  image_tag_mutability_exclusion_filter {\n    filter      = %s\n    filter_type = %s\n  }\n", hclQuote(f.Filter), hclQuote(f.FilterType))
		}
		b.WriteString("}\n")
	}
	return b.Bytes()
}

// hclText is a quoted text, "" for none.
func hclText(s string) string {
	if s == "" {
		return ""
	}
	return hclQuote(s)
}

// writeArguments writes the arguments that have a value, in columns.
func writeArguments(b *bytes.Buffer, args [][2]string) {
	width := 0
	for _, a := range args {
		if a[1] != "" {
			width = max(width, len(a[0]))
		}
	}
	for _, a := range args {
		if a[1] != "" {
			fmt.Fprintf(b, "  %-*s = %s\n", width, a[0], a[1])
		}
	}
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
