package ecrrules

import "encoding/json"

// writeJSON writes what DescribePullThroughCacheRules would say.
func writeJSON(items []item) ([]byte, error) {
	doc := struct {
		Rules []Entry `json:"pullThroughCacheRules"`
	}{Rules: []Entry{}}
	for _, it := range items {
		if !it.left {
			doc.Rules = append(doc.Rules, it.Entry)
		}
	}
	text, err := json.MarshalIndent(doc, "", "  ")
	return append(text, '\n'), err
}
