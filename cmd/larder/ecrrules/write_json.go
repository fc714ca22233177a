package ecrrules

import "encoding/json"

// writeJSON writes what DescribePullThroughCacheRules would say, and
// DescribeRepositoryCreationTemplates if there are any.
func writeJSON(items []item, templates []templateItem) ([]byte, error) {
	doc := struct {
		Rules     []Entry         `json:"pullThroughCacheRules"`
		Templates []TemplateEntry `json:"repositoryCreationTemplates,omitempty"`
	}{Rules: []Entry{}}
	for _, it := range items {
		if !it.left {
			doc.Rules = append(doc.Rules, it.Entry)
		}
	}
	for _, it := range templates {
		if !it.left {
			doc.Templates = append(doc.Templates, it.TemplateEntry)
		}
	}
	text, err := json.MarshalIndent(doc, "", "  ")
	return append(text, '\n'), err
}
