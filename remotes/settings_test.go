package remotes

import (
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestSettingsValidate(t *testing.T) {
	t.Parallel()
	five := []string{"a", "b*", "*c", "*", "v1.0_x-y"}
	negative, day := -time.Second, 24*time.Hour
	for _, s := range []Settings{
		{},
		{Mode: ModeOffline, Private: PrivateVerify, Window: &day, Deleted: DeletedWarn, Allow: []string{"*"}, Deny: []string{"x/*"}},
		{ImageTagMutability: Mutable},
		{ImageTagMutability: Immutable},
		{ImageTagMutability: MutableWithExclusion, ImageTagMutabilityExclusionFilters: five},
		{ImageTagMutability: ImmutableWithExclusion, ImageTagMutabilityExclusionFilters: []string{strings.Repeat("a", 128)}},
	} {
		if err := s.Validate(); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
	for _, c := range []struct {
		settings Settings
		words    []string
	}{
		{Settings{Mode: "x", Private: "y", Deleted: "z"}, []string{
			`mode: "x": want one of cache-first`, `private: "y": want one of no, verify`, `deleted: "z": want one of serve, warn, refuse`}},
		{Settings{Window: &negative}, []string{"window: -1s: must not be negative"}},
		{Settings{ImageTagMutability: "immutable"}, []string{`image_tag_mutability: "immutable": want one of MUTABLE, IMMUTABLE,`}},
		{Settings{ImageTagMutabilityExclusionFilters: []string{"a"}}, []string{"image_tag_mutability_exclusion_filters: goes only with"}},
		{Settings{ImageTagMutability: Immutable, ImageTagMutabilityExclusionFilters: []string{"a"}}, []string{"goes only with"}},
		{Settings{ImageTagMutability: ImmutableWithExclusion}, []string{"has 0 entries", "wants 1 to 5"}},
		{Settings{ImageTagMutability: ImmutableWithExclusion, ImageTagMutabilityExclusionFilters: append(five, "f")}, []string{"has 6 entries"}},
		{Settings{ImageTagMutability: ImmutableWithExclusion, ImageTagMutabilityExclusionFilters: []string{"a", "b/c", "", strings.Repeat("a", 129)}},
			[]string{`image_tag_mutability_exclusion_filters[1]: "b/c" must match ^[0-9a-zA-Z._*-]{1,128}$`, `filters[2]: ""`, "filters[3]: "}},
		{Settings{Allow: []string{""}, Deny: []string{"a", ""}}, []string{"allow[0]: pattern is empty", "deny[1]: pattern is empty"}},
	} {
		err := c.settings.Validate()
		mentions(t, err, c.words...)
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: got %v, want errdefs.ErrInvalidArgument", c.settings, err)
		}
	}
}

func TestTemplateValidate(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"a", "docker-hub/library/", Root, "docker.io/library", strings.Repeat("a", 256)} {
		if err := (Template{Prefix: prefix}).Validate(); err != nil {
			t.Errorf("%.40q: %v", prefix, err)
		}
	}
	for prefix, words := range map[string]string{
		"": "prefix: \"\" has 0 characters, want 1 to 256", strings.Repeat("a", 257): "has 257 characters", "A": `prefix: "A" must match`,
		"localhost:5000/x": "must match",
	} {
		err := Template{Prefix: prefix, Settings: Settings{Mode: "x"}}.Validate()
		mentions(t, err, words, "mode: ")
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%.40q: got %v, want errdefs.ErrInvalidArgument", prefix, err)
		}
	}
	for _, c := range []struct {
		templates []Template
		is        func(error) bool
	}{
		{[]Template{{Prefix: "a"}, {Prefix: "a/"}}, errdefs.IsAlreadyExists},
		{[]Template{{Prefix: Root}, {Prefix: Root}}, errdefs.IsAlreadyExists},
		{[]Template{{Prefix: "!"}}, errdefs.IsInvalidArgument},
	} {
		if _, err := NewPolicies(Policy{}).WithRules(Rules{}, c.templates); !c.is(err) {
			t.Errorf("%+v: got %v", c.templates, err)
		}
	}
}
