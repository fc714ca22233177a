package ecrrules

import (
	"bytes"
	"strings"

	"go.yaml.in/yaml/v3"
)

// writeCloudFormation writes a stack's template with a resource for each rule and
// each of larder's templates.
func writeCloudFormation(items []item, templates []templateItem) ([]byte, error) {
	resources := &yaml.Node{Kind: yaml.MappingNode}
	ids := unique{}
	var left []string // comments that have no resource to stand above
	for _, it := range items {
		if it.left {
			left = append(left, it.notes...)
			continue
		}
		properties := &yaml.Node{Kind: yaml.MappingNode}
		for _, p := range [][2]string{
			{"EcrRepositoryPrefix", it.ECRRepositoryPrefix},
			{"UpstreamRegistryUrl", it.UpstreamRegistryURL},
			{"UpstreamRegistry", it.UpstreamRegistry},
			{"UpstreamRepositoryPrefix", it.UpstreamRepositoryPrefix},
			{"CredentialArn", it.CredentialARN},
			{"CustomRoleArn", it.CustomRoleARN},
		} {
			if p[1] != "" {
				set(properties, p[0], text(p[1]))
			}
		}
		resource := &yaml.Node{Kind: yaml.MappingNode}
		set(resource, "Type", plain("AWS::ECR::PullThroughCacheRule"))
		set(resource, "Properties", properties)
		key := set(resources, ids.next(logicalID(it.ECRRepositoryPrefix, "Rule"), ""), resource)
		key.HeadComment = comment(it.notes)
	}
	for _, it := range templates {
		if it.left {
			left = append(left, it.notes...)
			continue
		}
		resource := &yaml.Node{Kind: yaml.MappingNode}
		set(resource, "Type", plain("AWS::ECR::RepositoryCreationTemplate"))
		set(resource, "Properties", templateProperties(it.TemplateEntry))
		key := set(resources, ids.next(logicalID(it.Prefix, "Template"), ""), resource)
		key.HeadComment = comment(it.notes)
	}
	doc := &yaml.Node{Kind: yaml.MappingNode}
	version := set(doc, "AWSTemplateFormatVersion", text("2010-09-09"))
	version.HeadComment = comment(append([]string{"Pull through cache rules for the account and region of the stack."}, left...))
	set(doc, "Resources", resources)

	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}

func plain(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

// text is always quoted: CloudFormation reads YAML 1.1, where 1e10 and 012 are
// numbers.
func text(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle}
}

// set appends a key to a mapping and returns it.
func set(mapping *yaml.Node, key string, value *yaml.Node) *yaml.Node {
	k := plain(key)
	mapping.Content = append(mapping.Content, k, value)
	return k
}

func comment(lines []string) string {
	for i, line := range lines {
		lines[i] = "# " + line
	}
	return strings.Join(lines, "\n")
}

// templateProperties are those of a repository creation template.
func templateProperties(e TemplateEntry) *yaml.Node {
	properties := &yaml.Node{Kind: yaml.MappingNode}
	set(properties, "Prefix", text(e.Prefix))
	set(properties, "AppliedFor", &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{text(pullThrough)}})
	if e.ImageTagMutability != "" {
		set(properties, "ImageTagMutability", text(e.ImageTagMutability))
	}
	filters := &yaml.Node{Kind: yaml.SequenceNode}
	for _, f := range e.ExclusionFilters {
		filter := &yaml.Node{Kind: yaml.MappingNode}
		set(filter, "ImageTagMutabilityExclusionFilterType", text(f.FilterType))
		set(filter, "ImageTagMutabilityExclusionFilterValue", text(f.Filter))
		filters.Content = append(filters.Content, filter)
	}
	if len(filters.Content) > 0 {
		set(properties, "ImageTagMutabilityExclusionFilters", filters)
	}
	if e.LifecyclePolicy != "" {
		set(properties, "LifecyclePolicy", text(e.LifecyclePolicy))
	}
	return properties
}

// logicalID makes a name of letters and digits of a prefix.
func logicalID(prefix, kind string) string {
	words := strings.FieldsFunc(strings.ToLower(prefix), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	var b strings.Builder
	for _, w := range words {
		b.WriteString(strings.ToUpper(w[:1]) + w[1:])
	}
	return b.String() + kind
}
