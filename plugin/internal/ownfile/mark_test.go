package ownfile

import "testing"

func TestMark(t *testing.T) {
	t.Parallel()
	const mark Mark = "# larder test v1 sha256:"
	text := mark.On("body\n")
	for name, test := range map[string]struct {
		text         string
		ours, edited bool
	}{
		"as written":      {text, true, false},
		"more behind it":  {text + "x", true, true},
		"the sum changed": {string(mark) + "-" + text[len(mark)+1:], true, true},
		"the mark alone":  {string(mark), true, true},
		"of others":       {"x" + text, false, false},
		"of another mark": {Mark("# larder other v1 sha256:").On("body\n"), false, false},
		"none":            {"", false, false},
	} {
		if ours, edited := mark.Parse(test.text); ours != test.ours || edited != test.edited {
			t.Errorf("%s: ours %t, edited %t, want %t, %t", name, ours, edited, test.ours, test.edited)
		}
	}
}
