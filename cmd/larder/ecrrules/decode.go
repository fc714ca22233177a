package ecrrules

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes"
)

// maxInput bounds, in bytes, what is read; the rules of an account are a few
// kilobytes.
const maxInput = 4 << 20

// maxRules bounds the rules of one input. ECR allows an account 50.
const maxRules = 1000

// List is what an account says.
type List struct {
	Rules []remotes.Rule
	// Templates are its repository creation templates, those for pull through
	// caches. Skipped says which are not.
	Templates []remotes.Template
	Skipped   []string
	// More says that the list is a page and the account has further rules.
	More bool
}

// Decode reads the JSON that "aws ecr describe-pull-through-cache-rules" or
// "describe-repository-creation-templates" prints, or both in one. Fields that it does not know are skipped. Its errors, of kind
// errdefs.ErrInvalidArgument, name each entry that is wrong.
func Decode(r io.Reader) (List, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err != nil {
		return List{}, err
	}
	if len(data) > maxInput {
		return List{}, invalid("larger than %d MiB, these are no rules of an account", maxInput>>20)
	}
	if len(strings.TrimSpace(string(data))) == 0 {
		return List{}, invalid("is empty, want the JSON of aws ecr describe-pull-through-cache-rules")
	}
	var doc struct {
		Rules     *[]json.RawMessage `json:"pullThroughCacheRules"`
		Templates *[]json.RawMessage `json:"repositoryCreationTemplates"`
		NextToken any                `json:"nextToken"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return List{}, jsonError(err)
	}
	if doc.Rules == nil && doc.Templates == nil {
		return List{}, invalid("has no pullThroughCacheRules, want the JSON of aws ecr describe-pull-through-cache-rules")
	}
	list := List{More: doc.NextToken != nil}
	var ruleErr, templateErr error
	if doc.Rules != nil {
		list.Rules, ruleErr = decodeRules(*doc.Rules)
	}
	if doc.Templates != nil {
		list.Templates, list.Skipped, templateErr = decodeTemplates(*doc.Templates)
	}
	if err := errors.Join(ruleErr, templateErr); err != nil {
		return List{}, err
	}
	return list, nil
}

func decodeRules(raws []json.RawMessage) ([]remotes.Rule, error) {
	if n := len(raws); n > maxRules {
		return nil, tooMany(n)
	}
	var entries []Entry
	var errs []error
	for i, raw := range raws {
		var e Entry
		if err := json.Unmarshal(raw, &e); err != nil {
			errs = append(errs, fmt.Errorf("pullThroughCacheRules[%d]: %w", i, jsonError(err)))
		}
		entries = append(entries, e)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return rulesOf(entries)
}

func tooMany(n int) error { return invalid("has %d rules, want at most %d", n, maxRules) }

// jsonError says what is wrong with JSON without the words of a Go program.
func jsonError(err error) error {
	if se, ok := errors.AsType[*json.SyntaxError](err); ok {
		return invalid("not JSON: %s at byte %d", se, se.Offset)
	}
	if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		want := te.Type.Kind().String()
		switch want {
		case "struct":
			want = "object"
		case "slice":
			want = "array"
		}
		field := te.Field
		if field != "" {
			field += ": "
		}
		return invalid("%sgot a JSON %s, want a JSON %s", field, strings.Fields(te.Value)[0], want)
	}
	return invalid("not JSON: %s", err)
}

// rulesOf checks entries and returns them as rules, or all that is wrong.
func rulesOf(entries []Entry) ([]remotes.Rule, error) {
	var rules []remotes.Rule
	var errs []error
	first := map[string]int{}
	for i, e := range entries {
		at := fmt.Sprintf("pullThroughCacheRules[%d] (%.40q)", i, e.ECRRepositoryPrefix)
		prefix := strings.TrimSuffix(e.ECRRepositoryPrefix, "/")
		if other, taken := first[prefix]; taken {
			errs = append(errs, fmt.Errorf("%s: the prefix stands in pullThroughCacheRules[%d] already: %w", at, other, errdefs.ErrAlreadyExists))
			continue
		}
		first[prefix] = i
		for _, err := range e.rule().Problems() {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
		}
		rules = append(rules, e.rule())
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return rules, nil
}
