package lifecycle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/containerd/errdefs"
)

const (
	// maxText bounds a policy in characters (API reference, PutLifecyclePolicy).
	// Its least, 100, is less than the shortest policy that has a rule.
	maxText = 30720
	// maxRules is ECR's (user guide, service quotas).
	maxRules = 50
	// maxNumber bounds priorities and counts, so that sums of them are numbers,
	// too.
	maxNumber = 1<<31 - 1
)

// Parse reads the text of a policy. Its error joins all problems by
// errors.Join; each begins with its place, for instance
// "rules[1].selection.countUnit: …", and wraps errdefs.ErrInvalidArgument.
func Parse(text []byte) (Policy, error) {
	if n := utf8.RuneCount(text); n > maxText {
		return Policy{}, invalid("has %d characters, want at most %d", n, maxText)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return Policy{}, invalid("is empty, want the JSON of a lifecycle policy")
	}
	if !utf8.Valid(text) {
		return Policy{}, invalid("is not UTF-8")
	}
	if err := wellFormed(text); err != nil {
		return Policy{}, err
	}
	r := reader{}
	p := r.policy(bytes.TrimSpace(text))
	if len(r.problems) > 0 {
		return Policy{}, errors.Join(r.problems...)
	}
	return p, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}

// wellFormed checks that the text is one JSON value. That it is, the reader
// relies on.
func wellFormed(text []byte) error {
	var v json.RawMessage
	err := json.Unmarshal(text, &v)
	if se, ok := errors.AsType[*json.SyntaxError](err); ok {
		return invalid("not JSON: %s at byte %d", se, se.Offset)
	}
	if err != nil {
		return invalid("not JSON: %s", err)
	}
	return nil
}

// reader reads values that are JSON and collects what is wrong with them.
type reader struct {
	problems []error
}

func (r *reader) problem(path, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if path != "" {
		text = path + ": " + text
	}
	r.problems = append(r.problems, invalid("%s", text))
}

// member is what to do with the value of a key.
type member struct {
	name     string
	required bool
	read     func(path string, value []byte)
}

func (r *reader) policy(text []byte) (p Policy) {
	r.object("", text, []member{{"rules", true, func(path string, value []byte) {
		values, ok := r.array(path, value)
		switch {
		case !ok:
			return
		case len(values) == 0:
			r.problem(path, "is empty, want 1 to %d rules", maxRules)
		case len(values) > maxRules:
			r.problem(path, "has %d rules, want 1 to %d", len(values), maxRules)
			return
		}
		sound := make([]bool, len(values))
		for i, v := range values {
			at, before := fmt.Sprintf("%s[%d]", path, i), len(r.problems)
			p.Rules = append(p.Rules, r.rule(at, v))
			if sound[i] = len(r.problems) == before; sound[i] { // else more would only confuse
				r.check(at, p.Rules[i])
			}
		}
		r.checkAmong(path, p.Rules, sound)
	}}})
	return p
}

func (r *reader) rule(path string, value []byte) (rule Rule) {
	r.object(path, value, []member{
		{"rulePriority", true, r.number(&rule.Priority)},
		{"description", false, r.text(&rule.Description)},
		{"selection", true, func(path string, value []byte) { rule.Selection = r.selection(path, value) }},
		{"action", true, func(path string, value []byte) {
			r.object(path, value, []member{
				{"type", true, choice(r, &rule.Action.Type, Expire, Transition)},
				{"targetStorageClass", false, choice(r, &rule.Action.TargetStorageClass, Archive)},
			})
		}},
	})
	return rule
}

func (r *reader) selection(path string, value []byte) (s Selection) {
	r.object(path, value, []member{
		{"tagStatus", true, choice(r, &s.TagStatus, Tagged, Untagged, Any)},
		{"tagPatternList", false, r.texts(&s.TagPatterns)},
		{"tagPrefixList", false, r.texts(&s.TagPrefixes)},
		{"storageClass", false, choice(r, &s.StorageClass, Standard, Archive)},
		{"countType", true, choice(r, &s.CountType, CountMoreThan, SincePushed, SincePulled, SinceTransitioned)},
		{"countUnit", false, choice(r, &s.CountUnit, "days")},
		{"countNumber", true, r.number(&s.CountNumber)},
	})
	return s
}

// object reads the members of an object. encoding/json would take keys in any
// case, and the last of several with one name.
func (r *reader) object(path string, value []byte, members []member) {
	if value[0] != '{' {
		r.problem(path, "got %s, want an object", kindOf(value))
		return
	}
	seen := map[string]bool{}
	dec := json.NewDecoder(bytes.NewReader(value))
	_, _ = dec.Token() // the brace
	for dec.More() {
		name, v, err := nextMember(dec)
		if err != nil {
			r.problem(path, "not JSON: %s", err)
			return
		}
		at := joined(path, name)
		i := slices.IndexFunc(members, func(m member) bool { return m.name == name })
		switch {
		case i < 0:
			r.problem(joined(path, shortened(name)), "unknown key, want %s", namesOf(members))
		case seen[name]:
			r.problem(at, "stands there twice")
		default:
			seen[name] = true
			members[i].read(at, v)
		}
	}
	for _, m := range members {
		if m.required && !seen[m.name] {
			r.problem(joined(path, m.name), "is missing")
		}
	}
}

// nextMember reads a key and its value.
func nextMember(dec *json.Decoder) (name string, value json.RawMessage, err error) {
	key, err := dec.Token()
	if err != nil {
		return "", nil, err
	}
	name, _ = key.(string)
	return name, value, dec.Decode(&value)
}

func namesOf(members []member) string {
	var names []string
	for _, m := range members {
		names = append(names, m.name)
	}
	return oneOf(names)
}

// oneOf lists words for people.
func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

func joined(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// shortened is a name of somebody else's, fit for an error.
func shortened(name string) string { return strings.Trim(fmt.Sprintf("%.60q", name), `"`) }

func kindOf(value []byte) string {
	switch value[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a text"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "a number"
}

func (r *reader) array(path string, value []byte) (values []json.RawMessage, ok bool) {
	if value[0] != '[' {
		r.problem(path, "got %s, want an array", kindOf(value))
		return nil, false
	}
	if err := json.Unmarshal(value, &values); err != nil {
		r.problem(path, "not JSON: %s", err)
		return nil, false
	}
	return values, true
}

func (r *reader) string(path string, value []byte) (text string, ok bool) {
	if value[0] != '"' {
		r.problem(path, "got %s, want a text", kindOf(value))
		return "", false
	}
	if err := json.Unmarshal(value, &text); err != nil {
		r.problem(path, "not JSON: %s", err)
		return "", false
	}
	return text, true
}

func (r *reader) text(dst *string) func(string, []byte) {
	return func(path string, value []byte) { *dst, _ = r.string(path, value) }
}

func (r *reader) texts(dst *[]string) func(string, []byte) {
	return func(path string, value []byte) {
		values, ok := r.array(path, value)
		if ok && len(values) == 0 {
			r.problem(path, "is empty, want at least one text")
		}
		for i, v := range values {
			at := fmt.Sprintf("%s[%d]", path, i)
			text, ok := r.string(at, v)
			if ok && text == "" {
				r.problem(at, "is empty")
			}
			*dst = append(*dst, text)
		}
	}
}

func (r *reader) number(dst *int) func(string, []byte) {
	return func(path string, value []byte) {
		if kind := kindOf(value); kind != "a number" {
			r.problem(path, "got %s, want a whole number", kind)
			return
		}
		n, err := strconv.Atoi(string(value))
		if err != nil || n < 1 || n > maxNumber {
			r.problem(path, "%.40s: want a whole number from 1 to %d", value, maxNumber)
			return
		}
		*dst = n
	}
}

func choice[T ~string](r *reader, dst *T, choices ...T) func(string, []byte) {
	return func(path string, value []byte) {
		text, ok := r.string(path, value)
		if !ok {
			return
		}
		if *dst = T(text); slices.Contains(choices, *dst) {
			return
		}
		names := make([]string, len(choices))
		for i, c := range choices {
			names[i] = string(c)
		}
		r.problem(path, "%.60q: want %s", text, oneOf(names))
	}
}
