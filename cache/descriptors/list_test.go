package descriptors

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestListIsBounded(t *testing.T) {
	t.Parallel()
	type doc struct{ Manifests List }
	list := func(n int) string { return `{"manifests":[` + strings.Repeat("{},", n-1) + `{}]}` }
	for name, c := range map[string]struct {
		text string
		want int // -1: refused
	}{
		"none": {`{}`, 0}, "null": {`{"manifests":null}`, 0}, "empty": {`{"manifests":[]}`, 0},
		"most": {list(Max), Max}, "too many": {list(Max + 1), -1},
		"large":     {`{"manifests":[{"artifactType":"` + strings.Repeat("x", maxDescriptor/2) + `"}]}`, 1},
		"too large": {`{"manifests":[{"artifactType":"` + strings.Repeat("x", maxDescriptor) + `"}]}`, -1},
		"twice":     {`{"manifests":[],"manifests":[{}]}`, -1}, "spelt otherwise": {`{"manifests":[{}],"Manifests":[]}`, -1},
		"null first": {`{"manifests":null,"manifests":[{}]}`, 1}, "null last": {`{"manifests":[{}],"manifests":null}`, 1},
		"object": {`{"manifests":{}}`, -1}, "number": {`{"manifests":1}`, -1},
	} {
		var d doc
		err := json.Unmarshal([]byte(c.text), &d)
		if c.want < 0 && !errdefs.IsDataLoss(err) || c.want >= 0 && (err != nil || len(d.Manifests) != c.want) {
			t.Errorf("%s: got %d, %v, want %d", name, len(d.Manifests), err, c.want)
		}
		if empty := d.Manifests != nil; name == "empty" && !empty || name == "null" && empty {
			t.Errorf("%s: got %#v", name, d.Manifests)
		}
	}
	if err := json.Unmarshal([]byte(`{"manifests":[{"size":"x"}]}`), &doc{}); !errors.As(err, new(*json.UnmarshalTypeError)) {
		t.Errorf("wrong type: %v, want json's own error", err)
	}
}
