package lifecycle

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"
)

const whole = `{
    "rules": [
        {
            "rulePriority": 1,
            "description": "keep three releases",
            "selection": {
                "tagStatus": "tagged",
                "tagPatternList": ["v*", "*.*"],
                "countType": "imageCountMoreThan",
                "countNumber": 3
            },
            "action": {"type": "expire"}
        },
        {
            "rulePriority": 5,
            "selection": {
                "tagStatus": "untagged", "storageClass": "standard",
                "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 14
            },
            "action": {"type": "expire"}
        },
        {
            "rulePriority": 90,
            "selection": {"tagStatus": "any", "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 60},
            "action": {"type": "transition", "targetStorageClass": "archive"}
        },
        {
            "rulePriority": 2,
            "selection": {"tagStatus": "any", "storageClass": "archive", "countType": "sinceImageTransitioned", "countUnit": "days", "countNumber": 90},
            "action": {"type": "expire"}
        }
    ]
}`

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := Parse([]byte("\n " + whole + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Policy{Rules: []Rule{
		{1, "keep three releases", Selection{TagStatus: Tagged, TagPatterns: []string{"v*", "*.*"}, CountType: CountMoreThan, CountNumber: 3}, Effect{Type: Expire}},
		{5, "", Selection{TagStatus: Untagged, StorageClass: Standard, CountType: SincePushed, CountUnit: "days", CountNumber: 14}, Effect{Type: Expire}},
		{90, "", Selection{TagStatus: Any, CountType: SincePulled, CountUnit: "days", CountNumber: 60}, Effect{Transition, Archive}},
		{2, "", Selection{TagStatus: Any, StorageClass: Archive, CountType: SinceTransitioned, CountUnit: "days", CountNumber: 90}, Effect{Type: Expire}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// one is a policy of one rule in which a text is replaced.
func one(old, text string) string {
	return strings.Replace(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":1},"action":{"type":"expire"}}]}`, old, text, 1)
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const anyTag = `"tagStatus":"any"`
	two := func(a, b string) string {
		return strings.TrimSuffix(one(anyTag, a), "]}") + "," + strings.TrimPrefix(strings.Replace(one(anyTag, b), `"rulePriority":1`, `"rulePriority":2`, 1), `{"rules":[`)
	}
	const archived = `"storageClass":"archive","countType":"sinceImageTransitioned","countUnit":"days","countNumber":90`
	const counted = `"countType":"sinceImagePushed","countUnit":"days","countNumber":1`
	for name, tc := range map[string]struct{ text, want string }{
		"empty":            {" ", "is empty"},
		"no JSON":          {`rules`, "not JSON: invalid character"},
		"two values":       {one("", "") + "{}", "not JSON: "},
		"array":            {"[]", "got an array, want an object"},
		"no rules":         {"{}", "rules: is missing"},
		"rules are none":   {`{"rules":[]}`, "rules: is empty, want 1 to 50 rules"},
		"rules are null":   {`{"rules":null}`, "rules: got null, want an array"},
		"rule is none":     {`{"rules":[1]}`, "rules[0]: got a number, want an object"},
		"unknown key":      {one(`"rulePriority"`, `"priority":1,"rulePriority"`), "rules[0].priority: unknown key, want rulePriority, description, selection or action"},
		"other case":       {one(`"rulePriority"`, `"rulepriority"`), "rules[0].rulepriority: unknown key"},
		"twice":            {one(`"rulePriority"`, `"rulePriority":1,"rulePriority"`), "rules[0].rulePriority: stands there twice"},
		"no priority":      {one(`"rulePriority":1,`, ``), "rules[0].rulePriority: is missing"},
		"priority 0":       {one(`"rulePriority":1`, `"rulePriority":0`), "rules[0].rulePriority: 0: want a whole number from 1"},
		"priority text":    {one(`"rulePriority":1`, `"rulePriority":"1"`), "rules[0].rulePriority: got a text, want a whole number"},
		"priority 1.5":     {one(`"rulePriority":1`, `"rulePriority":1.5`), "rules[0].rulePriority: 1.5: want a whole number"},
		"priority 1e3":     {one(`"rulePriority":1`, `"rulePriority":1e3`), "rules[0].rulePriority: 1e3: want a whole number"},
		"priority huge":    {one(`"rulePriority":1`, `"rulePriority":99999999999`), "rules[0].rulePriority: 99999999999: want a whole number"},
		"same priority":    {strings.Replace(two(`"tagStatus":"untagged"`, anyTag), `"rulePriority":2`, `"rulePriority":1`, 1), "rules[1].rulePriority: 1: rules[0] has it already"},
		"description":      {one(`"rulePriority":1`, `"rulePriority":1,"description":1`), "rules[0].description: got a number, want a text"},
		"no selection":     {`{"rules":[{"rulePriority":1,"action":{"type":"expire"}}]}`, "rules[0].selection: is missing"},
		"no status":        {one(anyTag+",", ""), "rules[0].selection.tagStatus: is missing"},
		"status":           {one(`"any"`, `"all"`), `rules[0].selection.tagStatus: "all": want tagged, untagged or any`},
		"count type":       {one(`sinceImagePushed`, `sinceImageUsed`), `rules[0].selection.countType: "sinceImageUsed": want`},
		"count 0":          {one(`"countNumber":1`, `"countNumber":0`), "rules[0].selection.countNumber: 0: want a whole number from 1"},
		"unit":             {one(`"days"`, `"hours"`), `rules[0].selection.countUnit: "hours": want days`},
		"no unit":          {one(`"countUnit":"days",`, ``), "rules[0].selection.countUnit: is missing: countType sinceImagePushed wants days"},
		"unit of a count":  {one(`sinceImagePushed`, `imageCountMoreThan`), "rules[0].selection.countUnit: does not go with countType imageCountMoreThan"},
		"tagged alone":     {one(anyTag, `"tagStatus":"tagged"`), "rules[0].selection: tagStatus tagged wants tagPatternList or tagPrefixList"},
		"both lists":       {one(anyTag, `"tagStatus":"tagged","tagPatternList":["a"],"tagPrefixList":["a"]`), "and not both"},
		"any with list":    {one(anyTag, anyTag+`,"tagPatternList":["a"]`), "rules[0].selection.tagPatternList: goes with tagStatus tagged only"},
		"untagged, list":   {one(anyTag, `"tagStatus":"untagged","tagPrefixList":["a"]`), "rules[0].selection.tagPrefixList: goes with tagStatus tagged only"},
		"empty list":       {one(anyTag, `"tagStatus":"tagged","tagPrefixList":[]`), "rules[0].selection.tagPrefixList: is empty"},
		"empty entry":      {one(anyTag, `"tagStatus":"tagged","tagPrefixList":["a",""]`), "rules[0].selection.tagPrefixList[1]: is empty"},
		"list is text":     {one(anyTag, `"tagStatus":"tagged","tagPrefixList":"a"`), "rules[0].selection.tagPrefixList: got a text, want an array"},
		"five wildcards":   {one(anyTag, `"tagStatus":"tagged","tagPatternList":["a*","*a*b*c*d*"]`), `rules[0].selection.tagPatternList[1]: "*a*b*c*d*": has 5 *, want at most 4`},
		"archive":          {one(anyTag, anyTag+`,"storageClass":"archive"`), "rules[0].selection.storageClass: archive goes with countType sinceImageTransitioned only"},
		"class":            {one(anyTag, anyTag+`,"storageClass":"glacier"`), `rules[0].selection.storageClass: "glacier": want standard or archive`},
		"not archived":     {one(counted, strings.Replace(archived, `"storageClass":"archive",`, "", 1)), "rules[0].selection.storageClass: countType sinceImageTransitioned wants archive"},
		"archived shortly": {one(counted, strings.Replace(archived, "90", "89", 1)), "rules[0].selection.countNumber: 89: countType sinceImageTransitioned wants at least 90"},
		"archive archived": {strings.Replace(one(counted, archived), `"expire"`, `"transition","targetStorageClass":"archive"`, 1), "rules[0].action.type: countType sinceImageTransitioned wants expire"},
		"no target":        {one(`"expire"`, `"transition"`), "rules[0].action.targetStorageClass: is missing: type transition wants archive"},
		"target":           {one(`"expire"`, `"transition","targetStorageClass":"standard"`), `rules[0].action.targetStorageClass: "standard": want archive`},
		"expire to":        {one(`"expire"`, `"expire","targetStorageClass":"archive"`), "rules[0].action.targetStorageClass: goes with type transition only"},
		"action":           {one(`"expire"`, `"delete"`), `rules[0].action.type: "delete": want expire or transition`},
		"any comes last":   {two(anyTag, `"tagStatus":"untagged"`), "rules[0].rulePriority: 1: a rule with tagStatus any must have the highest number, rules[1] has 2"},
		"any twice":        {two(anyTag, anyTag), "must have the highest number"},
		"untagged twice":   {two(`"tagStatus":"untagged"`, `"tagStatus":"untagged"`), "rules[1].selection.tagStatus: untagged: rules[0] is the one rule"},
		"same prefixes":    {two(`"tagStatus":"tagged","tagPrefixList":["a","b"]`, `"tagStatus":"tagged","tagPrefixList":["b","a","a"]`), "rules[1].selection.tagPrefixList: rules[0] has the same prefixes"},
		"no UTF-8":         {one(`"rulePriority"`, "\"description\":\"\xff\",\"rulePriority\""), "is not UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse([]byte(tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) || !errdefs.IsInvalidArgument(err) || got.Rules != nil {
				t.Errorf("got %+v, %v, want %q\n%s", got, err, tc.want, tc.text)
			}
		})
	}
}

func TestParseTellsAll(t *testing.T) {
	t.Parallel()
	_, err := Parse([]byte(`{"rule":1,"rules":[
		{"rulePriority":0,"selection":{"tagStatus":"some","countType":"imageCountMoreThan"}},
		{"rulePriority":3,"selection":{"tagStatus":"tagged","countType":"sinceImagePushed","countNumber":1},"action":{"type":"transition"}},
		{"rulePriority":2,"selection":{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}},
		{"rulePriority":2,"selection":{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}
	]}`))
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("got %v, want all problems", err)
	}
	want := []string{
		"rule: unknown key", "rules[0].rulePriority: 0", "rules[0].selection.tagStatus:", "rules[0].selection.countNumber: is missing", "rules[0].action: is missing",
		"rules[1].selection: tagStatus tagged", "rules[1].selection.countUnit: is missing", "rules[1].action.targetStorageClass: is missing",
		"rules[3].rulePriority: 2", "rules[3].selection.tagStatus: untagged",
	}
	all := joined.Unwrap()
	for i := range max(len(all), len(want)) {
		if i >= len(all) || i >= len(want) || !strings.HasPrefix(all[i].Error(), want[i]) {
			t.Fatalf("got\n%v\nwant\n%s", err, strings.Join(want, "\n"))
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	many := func(n int) string {
		var rules []string
		for i := range n {
			rules = append(rules, fmt.Sprintf(`{"rulePriority":%d,"selection":{"tagStatus":"tagged","tagPatternList":["p%d"],"countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}`, i+1, i))
		}
		return `{"rules":[` + strings.Join(rules, ",") + `]}`
	}
	padded := func(n int) string {
		text := one("", "")
		return strings.Replace(text, `"rulePriority"`, `"description":"`+strings.Repeat("ä", n-len(text)-len(`"description":"",`))+`","rulePriority"`, 1)
	}
	for name, text := range map[string]string{"50 rules": many(50), "30720 characters": padded(30720)} {
		if _, err := Parse([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for want, text := range map[string]string{"has 51 rules": many(51), "has 30721 characters": padded(30721)} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if n := len(one("", "")); n < 100 {
		t.Errorf("the shortest policy has %d characters: ECR's least, 100, must be checked", n)
	}
}

// FuzzParse: nothing panics; what parses is written back the same; no image is
// acted on twice, by a rule behind the first that has its tags, or before an
// index that lists it.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(one("", "")))
	f.Add([]byte(one(`"any"`, `"tagged","tagPrefixList":["a","v"]`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data)
		if err != nil {
			return
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Parse(text); len(text) <= maxText && (err != nil || !cmp.Equal(p, again, cmpopts.EquateEmpty())) {
			t.Errorf("%s reads back as %+v, %v", text, again, err)
		}
		checkActions(t, p, sample(data))
	})
}

// sample makes images that depend on data.
func sample(data []byte) []Image {
	var images []Image
	tags := []string{"v1", "a", "alpha-1", "prod", "1.0"}
	for i := range min(len(data), 40) {
		b := int(data[i])
		img := aged(fmt.Sprintf("d%d", i), float64(b), tags[:b%4]...)
		switch b % 7 {
		case 0:
			img.Children = []digest.Digest{digest.Digest(fmt.Sprintf("d%d", b%40)), "d1"}
		case 1:
			img.Subject = digest.Digest(fmt.Sprintf("d%d", b%40))
		case 2:
			img.Kept = "pinned"
		case 3:
			img.Pulled = now().Add(-time.Duration(b) * time.Hour)
		}
		images = append(images, img)
	}
	return images
}

func checkActions(t *testing.T, p Policy, images []Image) {
	t.Helper()
	parents := map[digest.Digest][]digest.Digest{}
	for _, img := range images {
		for _, c := range img.Children {
			if c != img.Digest {
				parents[c] = append(parents[c], img.Digest)
			}
		}
	}
	gone := map[digest.Digest]bool{}
	acted := map[digest.Digest]bool{}
	cyclic := cyclicIn(parents)
	for _, a := range p.Evaluate(images, now()) {
		dgst := a.Image.Digest
		if acted[dgst] {
			t.Errorf("%s is acted on twice", dgst)
		}
		acted[dgst] = true
		for _, r := range p.Rules {
			if r.Priority < a.Rule.Priority && r.Selection.matches(a.Image.Tags) {
				t.Errorf("%s is acted on by rule %d, although rule %d has its tags", dgst, a.Rule.Priority, r.Priority)
			}
		}
		if a.Kept != "" || a.Rule.Action.Type != Expire {
			continue
		}
		for _, parent := range parents[dgst] {
			if !gone[parent] && !cyclic[dgst] {
				t.Errorf("%s goes before index %s", dgst, parent)
			}
		}
		gone[dgst] = true
	}
}

// cyclicIn are those that are above themselves, as no digests can be.
func cyclicIn(parents map[digest.Digest][]digest.Digest) map[digest.Digest]bool {
	cyclic := map[digest.Digest]bool{}
	for start := range parents {
		seen, todo := map[digest.Digest]bool{}, parents[start]
		for len(todo) > 0 && !cyclic[start] {
			next := todo[0]
			todo = todo[1:]
			cyclic[start] = next == start
			if !seen[next] {
				seen[next] = true
				todo = append(todo[:len(todo):len(todo)], parents[next]...)
			}
		}
	}
	return cyclic
}
