package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

func now() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

// aged is an image of so many days.
func aged(name string, days float64, tags ...string) Image {
	return Image{Digest: digest.Digest(name), Tags: tags, Pushed: now().Add(-time.Duration(days * float64(day)))}
}

// rules makes a policy of selections; all expire.
func rules(t testing.TB, texts ...string) Policy {
	t.Helper()
	for i, text := range texts {
		if !strings.Contains(text, `"action"`) {
			text += `,"action":{"type":"expire"}`
		}
		texts[i] = fmt.Sprintf(`{"rulePriority":%d,%s}`, i+1, text)
	}
	p, err := Parse([]byte(`{"rules":[` + strings.Join(texts, ",") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// select1 is the selection of a rule: tagStatus with its prefixes, and count.
func select1(tags, count string) string {
	status, list := tags, ""
	if tags != "any" && tags != "untagged" {
		status, list = "tagged", `"tagPrefixList":["`+strings.ReplaceAll(tags, ",", `","`)+`"],`
	}
	kind, number, _ := strings.Cut(count, ">")
	unit := `"countUnit":"days",`
	if kind == "imageCountMoreThan" {
		unit = ""
	}
	return fmt.Sprintf(`"selection":{"tagStatus":%q,%s%s"countType":%q,"countNumber":%s}`, status, list, unit, kind, number)
}

// names are the images that go, and with "!" those that a rule wanted to go.
func names(actions []Action) []string {
	all := []string{}
	for _, a := range actions {
		name := a.Image.Digest.String()
		if a.Kept != "" {
			name = "!" + name
		}
		all = append(all, name)
	}
	return all
}

// The examples of ECR's user guide ("Examples of lifecycle policies"), and what
// its words say beyond them.
func TestEvaluate(t *testing.T) {
	t.Parallel()
	three := []Image{aged("A", 10, "beta-1", "prod-1"), aged("B", 9, "beta-2", "prod-2"), aged("C", 8, "beta-3")}
	for name, tc := range map[string]struct {
		images []Image
		rules  []string
		want   string
	}{
		"priority shields": {three, []string{select1("prod", "imageCountMoreThan>1"), select1("beta", "imageCountMoreThan>1")}, "A"},
		"other priority":   {three, []string{select1("beta", "imageCountMoreThan>1"), select1("prod", "imageCountMoreThan>1")}, "A B"},
		"all prefixes, by age": {
			[]Image{
				aged("A", 12, "alpha-1"), aged("B", 11, "beta-1"), aged("C", 10, "alpha-2", "beta-2"),
				aged("D", 4, "alpha-3"), aged("E", 3, "beta-3"), aged("F", 2, "alpha-4", "beta-4"),
			},
			[]string{select1("alpha,beta", "sinceImagePushed>5")}, "C",
		},
		"all prefixes, by count": {
			[]Image{
				aged("A", 10, "alpha-1", "beta-1", "gamma-1"), aged("B", 9, "alpha-2", "beta-2"), aged("C", 8, "alpha-3", "beta-3", "gamma-2"),
			},
			[]string{select1("alpha,beta", "imageCountMoreThan>1")}, "A B",
		},
		"any": {
			[]Image{aged("A", 4, "alpha-1"), aged("B", 3, "beta-1"), aged("C", 2), aged("D", 1, "alpha-2")},
			[]string{select1("any", "imageCountMoreThan>1")}, "A B C",
		},
		"three rules": {
			[]Image{aged("A", 4, "alpha-1", "beta-1"), aged("B", 3), aged("C", 2, "alpha-2"), aged("D", 1, "git hash"), aged("E", 0.99)},
			[]string{select1("alpha", "imageCountMoreThan>1"), select1("untagged", "sinceImagePushed>1"), select1("any", "imageCountMoreThan>1")},
			"A B D",
		},
		"exactly so old is not older": {
			[]Image{aged("A", 5, "a"), aged("B", 5.001, "a")}, []string{select1("a", "sinceImagePushed>5")}, "B",
		},
		"more days than there are": {
			[]Image{aged("A", 1, "a"), {Digest: "B", Tags: []string{"a"}}}, []string{select1("a", "sinceImagePushed>2147483647")}, "",
		},
		"nothing is pushed in the future": {[]Image{aged("A", -1, "a")}, []string{select1("any", "sinceImagePushed>1")}, ""},
		"same moment": {
			[]Image{aged("B", 1, "a"), aged("A", 1, "a"), aged("C", 1, "a")}, []string{select1("any", "imageCountMoreThan>1")}, "A B",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 2 { // whatever order the images come in
				got := names(rules(t, slices.Clone(tc.rules)...).Evaluate(tc.images, now()))
				if diff := cmp.Diff(strings.Fields(tc.want), got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				tc.images = slices.Clone(tc.images)
				slices.Reverse(tc.images)
			}
		})
	}
}

func TestEvaluatePatterns(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern, tag string
		want         bool
	}{
		{"prod*", "prod-1", true}, {"prod*", "a-prod", false}, {"*prod*", "a-prod-1", true}, {"prod", "prod", true},
		{"prod", "prod-1", false}, {"*", "x", true}, {"a*b*c", "a-b-c", true}, {"a*b*c", "a-c-b", false},
		{"a*a", "a", false}, {"a*a", "aa", true}, {"*.*.*", "1.2.3", true}, {"*.*.*", "1.2", false}, {"v*.0", "v1.0.0", true},
	} {
		p := rules(t, fmt.Sprintf(`"selection":{"tagStatus":"tagged","tagPatternList":[%q],"countType":"sinceImagePushed","countUnit":"days","countNumber":1}`, tc.pattern))
		if got := len(p.Evaluate([]Image{aged("A", 2, tc.tag)}, now())) == 1; got != tc.want {
			t.Errorf("%q fits %q: got %t", tc.pattern, tc.tag, got)
		}
	}
}

// Days without a pull count from the push if there was none.
func TestEvaluatePulled(t *testing.T) {
	t.Parallel()
	used := aged("A", 100, "a")
	used.Pulled = now().Add(-2 * day)
	idle := aged("B", 100, "b")
	idle.Pulled = now().Add(-31 * day)
	images := []Image{used, idle, aged("C", 40, "c"), aged("D", 20, "d")}
	got := names(rules(t, select1("any", "sinceImagePulled>30")).Evaluate(images, now()))
	if diff := cmp.Diff([]string{"B", "C"}, got); diff != "" {
		t.Error(diff)
	}
	archives := rules(t,
		`"selection":{"tagStatus":"any","storageClass":"archive","countType":"sinceImageTransitioned","countUnit":"days","countNumber":90}`,
		select1("any", "sinceImagePulled>30")+`,"action":{"type":"transition","targetStorageClass":"archive"}`)
	actions := archives.Evaluate(images, now())
	if diff := cmp.Diff([]string{"B", "C"}, names(actions)); diff != "" {
		t.Error(diff)
	}
	for _, a := range actions {
		if a.Rule.Action.Type != Transition {
			t.Errorf("%s: %s, want nothing but transitions: no image of a node is archived", a.Image.Digest, a.Rule.Action.Type)
		}
	}
}

func TestEvaluateTransitionShields(t *testing.T) {
	t.Parallel()
	p := rules(t,
		select1("a", "sinceImagePulled>1")+`,"action":{"type":"transition","targetStorageClass":"archive"}`,
		select1("any", "sinceImagePushed>1"))
	got := p.Evaluate([]Image{aged("A", 9, "a"), aged("B", 9, "b")}, now())
	if len(got) != 2 || got[0].Rule.Priority != 1 || got[1].Rule.Priority != 2 {
		t.Errorf("got %+v, want A by rule 1 and B by rule 2", got)
	}
}

// What an index lists goes with it, and not before it.
func TestEvaluateIndex(t *testing.T) {
	t.Parallel()
	list := func(name string, days float64, tag string, children ...digest.Digest) Image {
		img := aged(name, days, tag)
		img.Children = children
		return img
	}
	for name, tc := range map[string]struct {
		images []Image
		rule   string
		want   string
	}{
		"parts are not counted": {
			[]Image{list("L", 3, "1", "x", "y"), aged("x", 3), aged("y", 3), list("M", 2, "2", "z"), aged("z", 2), aged("U", 1)},
			select1("any", "imageCountMoreThan>2"), "L",
		},
		"untagged parts stay": {[]Image{list("L", 3, "1", "x"), aged("x", 3), aged("U", 3)}, select1("untagged", "sinceImagePushed>1"), "U"},
		"what no index lists any more is an image": {
			[]Image{aged("x", 3)}, select1("untagged", "sinceImagePushed>1"), "x",
		},
		"a tagged part of an index that stays, stays": {
			[]Image{list("L", 0.5, "1", "x"), aged("x", 3, "x")}, select1("any", "sinceImagePushed>1"), "!x",
		},
		"a tagged part goes behind its index": {
			[]Image{aged("x", 3, "x"), list("L", 2, "1", "x")}, select1("any", "sinceImagePushed>1"), "L x",
		},
		"nested": {
			[]Image{aged("x", 4, "x"), list("L", 3, "l", "x"), list("N", 0.5, "n", "L")}, select1("any", "sinceImagePushed>1"), "!L !x",
		},
		"children that are not there": {[]Image{list("L", 3, "1", "gone")}, select1("any", "sinceImagePushed>1"), "L"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := names(rules(t, tc.rule).Evaluate(tc.images, now()))
			if slices.Sort(got); strings.Contains(tc.want, "!") { // nothing goes, in whatever order
				if diff := cmp.Diff(strings.Fields(tc.want), got); diff != "" {
					t.Error(diff)
				}
				return
			}
			got = names(rules(t, tc.rule).Evaluate(tc.images, now()))
			if diff := cmp.Diff(strings.Fields(tc.want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// An artifact follows its subject; without one it is an image like others.
func TestEvaluateArtifacts(t *testing.T) {
	t.Parallel()
	signature := func(name string, subject digest.Digest, tags ...string) Image {
		img := aged(name, 5, tags...)
		img.Subject = subject
		return img
	}
	images := []Image{aged("A", 3, "1"), signature("s", "A"), signature("cosign", "A", "sha256-a.sig"), signature("orphan", "gone")}
	got := names(rules(t, select1("any", "sinceImagePushed>1")).Evaluate(images, now()))
	if diff := cmp.Diff([]string{"orphan", "A"}, got); diff != "" {
		t.Error(diff)
	}
}

// What may not go is counted, is shown, and keeps what hangs on it.
func TestEvaluateKept(t *testing.T) {
	t.Parallel()
	pinned := aged("P", 4, "1")
	pinned.Kept, pinned.Children = "pinned", []digest.Digest{"x"}
	images := []Image{pinned, aged("x", 4, "x"), aged("N", 1, "2")}
	got := rules(t, select1("any", "imageCountMoreThan>1")).Evaluate(images, now())
	if diff := cmp.Diff([]string{"!P", "!x"}, names(got)); diff != "" {
		t.Fatal(diff)
	}
	if got[0].Kept != "pinned" || !strings.Contains(got[1].Kept, "part of index P") {
		t.Errorf("got %q, %q", got[0].Kept, got[1].Kept)
	}
}
