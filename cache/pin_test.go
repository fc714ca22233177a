package cache

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// put sets pins written as "owner name".
func putPins(t testing.TB, s *Store, pins ...string) {
	t.Helper()
	for _, p := range pins {
		owner, name, _ := strings.Cut(p, " ")
		if err := s.PutPin(Pin{Name: name, Owner: owner}); err != nil {
			t.Fatal(err)
		}
	}
}

// pinsOf returns what PinsOf finds, written as "owner name".
func pinsOf(t testing.TB, s *Store, name string, dgst digest.Digest) []string {
	t.Helper()
	pins, err := s.PinsOf(name, dgst)
	if err != nil {
		t.Fatal(err)
	}
	found := []string{}
	for _, p := range pins {
		found = append(found, p.Owner+" "+p.Name)
	}
	return found
}

// TestPins: each owner takes away its own pin only, and all survive the store's
// closing.
func TestPins(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root)
	const name = "docker.io/library/nginx:1"
	if err := s.DeletePin(name, ""); !errdefs.IsNotFound(err) {
		t.Errorf("delete of no pin: %v, want not found", err)
	}
	mine := Pin{Name: name, Owner: PinOwnerCLI, Reason: "baked", Created: time.Unix(1e9, 0).UTC()}
	theirs := Pin{Name: name, Owner: "backup", Reason: "nightly", Created: time.Unix(2e9, 0).UTC()}
	for _, p := range []Pin{theirs, {Name: name, Reason: "first"}, {Name: name, Reason: mine.Reason, Created: mine.Created}} {
		if err := s.PutPin(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root)
	all, err := s.Pins()
	if diff := cmp.Diff([]Pin{theirs, mine}, all); err != nil || diff != "" {
		t.Errorf("pins: %v (-want +got):\n%s", err, diff)
	}
	if err := s.DeletePin(name, "nobody"); !errdefs.IsNotFound(err) {
		t.Errorf("delete of another's pin: %v, want not found", err)
	}
	if err := s.DeletePin(name, ""); err != nil {
		t.Error(err)
	}
	if got := pinsOf(t, s, name, ""); !slices.Equal(got, []string{"backup " + name}) {
		t.Errorf("got %v, want the other owner's alone", got)
	}
	if err := s.DeletePin(name, "backup"); err != nil {
		t.Error(err)
	}
	if got := pinsOf(t, s, name, ""); len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
	for _, p := range []Pin{{}, {Name: "a\x00b"}, {Name: "a", Owner: "b\x00"}, {Name: "a", Owner: PinOwnerConfig}, {Name: "a", Owner: PinOwnerFile}} {
		if err := s.PutPin(p); !errdefs.IsInvalidArgument(err) {
			t.Errorf("put %+v: %v, want an invalid argument", p, err)
		}
	}
}

// TestPinsOf asks for tags, digests and both, of each kind of pin.
func TestPinsOf(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	one, two, three := digest.FromString("1"), digest.FromString("2"), digest.FromString("3")
	putPins(t, s,
		"cli docker.io/library/app:1", "ci docker.io/library/app:1",
		"cli docker.io/library/app@"+one.String(), "cli "+two.String(),
		"cli quay.io/*:1", "cli *.corp:5000/base/*-lts",
		"cli localhost:5000/app:1",
	)
	for _, tc := range []struct {
		name string
		dgst digest.Digest
		want []string
	}{
		{"docker.io/library/app:1", "", []string{"ci docker.io/library/app:1", "cli docker.io/library/app:1"}},
		{"docker.io/library/app:1", three, []string{"ci docker.io/library/app:1", "cli docker.io/library/app:1"}},
		{"docker.io/library/app:11", "", nil},
		{"docker.io/library/app:2", one, []string{"cli docker.io/library/app@" + one.String()}},
		{"docker.io/library/app@" + one.String(), "", []string{"cli docker.io/library/app@" + one.String()}},
		{"docker.io/library/app@" + one.String(), one, []string{"cli docker.io/library/app@" + one.String()}},
		{"docker.io/library/other:2", one, nil}, // another repository's
		{"", one, []string{"cli docker.io/library/app@" + one.String()}},
		{"docker.io/library/other:2", two, []string{"cli " + two.String()}},
		{"docker.io/library/other@" + two.String(), "", []string{"cli " + two.String()}},
		{"", two, []string{"cli " + two.String()}},
		{"", three, nil},
		{"", "", nil},
		{"quay.io/a/b:1", two, []string{"cli quay.io/*:1", "cli " + two.String()}},
		{"quay.io/a/b:2", three, nil},
		{"quay.io/a/b@" + three.String(), three, nil},
		{"hub.corp:5000/base/os:9-lts", "", []string{"cli *.corp:5000/base/*-lts"}},
		{"hub.corp:5000/base/os:9-lts2", "", nil},
		{"localhost:5000/app:1", "", []string{"cli localhost:5000/app:1"}},
		{"localhost:5000/app", one, nil},
	} {
		if got := pinsOf(t, s, tc.name, tc.dgst); !slices.Equal(got, tc.want) {
			t.Errorf("%q %q: got %v, want %v", tc.name, tc.dgst, got, tc.want)
		}
	}
}

// TestSetPins: pins in memory count like those of the index, and are replaced
// as a whole.
func TestSetPins(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root)
	putPins(t, s, "cli a/b:1")
	s.SetPins(PinOwnerConfig, []Pin{{Name: "a/*", Reason: "base"}})
	s.SetPins(PinOwnerFile, []Pin{{Name: "a/b:1"}, {Name: "c/d:1"}})
	if got, want := pinsOf(t, s, "a/b:1", ""), []string{"config a/*", "cli a/b:1", "file a/b:1"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	s.SetPins(PinOwnerFile, nil)
	if got, want := pinsOf(t, s, "a/b:1", ""), []string{"config a/*", "cli a/b:1"}; !slices.Equal(got, want) {
		t.Errorf("without the file's: got %v, want %v", got, want)
	}
	if err := s.DeletePin("a/*", PinOwnerConfig); !errdefs.IsNotFound(err) {
		t.Errorf("delete of a pin in memory: %v, want not found", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root)
	if all, err := s.Pins(); err != nil || len(all) != 1 {
		t.Errorf("pins after the next start are %v, %v, want the index's alone", all, err)
	}
}

// TestPinIsSeenAtOnce has pins put and asked for at the same time: what PutPin
// returned from, PinsOf knows.
func TestPinIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	t.Run("all", func(t *testing.T) {
		for i := range 8 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				for n := range 20 {
					name := fmt.Sprintf("r/%d:%d", i, n)
					putPins(t, s, "cli "+name)
					if got := pinsOf(t, s, name, ""); len(got) != 1 {
						t.Errorf("%s: %v, want its pin", name, got)
					}
					if err := s.DeletePin(name, ""); err != nil {
						t.Error(err)
					}
					if got := pinsOf(t, s, name, ""); len(got) != 0 {
						t.Errorf("%s: %v, want no pin", name, got)
					}
				}
			})
		}
	})
}

// TestPinsWayBack: a larder from before there were owners reads, sets and takes
// away what it knows, and this one goes on with that.
func TestPinsWayBack(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root)
	putPins(t, s, "cli kept:1", "cli dropped:1", "backup shared:1", "cli shared:1", "backup theirs:1", "cli "+digest.FromString("x").String(), "cli a/*")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	type oldPin struct {
		Name    string    `json:"name"`
		Reason  string    `json:"reason,omitempty"`
		Created time.Time `json:"created"`
	}
	db, err := bolt.Open(filepath.Join(root, "index.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	err = db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("pins"))
		for _, name := range []string{"kept:1", "dropped:1", "shared:1"} {
			var p oldPin
			if err := json.Unmarshal(b.Get([]byte(name)), &p); err != nil || p.Name != name {
				t.Errorf("the older larder reads %+v, %v, want the pin of %s", p, err, name)
			}
		}
		err := b.ForEach(func(_, data []byte) error {
			var p oldPin
			err := json.Unmarshal(data, &p)
			listed[p.Name] = true
			return err
		})
		if err != nil {
			return err
		}
		if err := b.Delete([]byte("dropped:1")); err != nil {
			return err
		}
		data, err := json.Marshal(oldPin{Name: "old:1", Reason: "from before", Created: time.Unix(1e9, 0).UTC()})
		if err != nil {
			return err
		}
		return b.Put([]byte("old:1"), data)
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil || len(listed) != 6 || !listed["theirs:1"] {
		t.Errorf("the older larder lists %v, %v, want every name that is pinned", listed, err)
	}
	s = openStore(t, root)
	all, err := s.Pins()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range all {
		got = append(got, p.Owner+" "+p.Name)
	}
	want := []string{"cli a/*", "cli kept:1", "cli old:1", "cli " + digest.FromString("x").String(), "backup shared:1", "cli shared:1", "backup theirs:1"}
	if !slices.Equal(got, want) {
		t.Errorf("pins are %v, want %v", got, want)
	}
	if err := s.DeletePin("old:1", PinOwnerCLI); err != nil {
		t.Errorf("unpin what the older larder has pinned: %v", err)
	}
}

// TestGlob: "*" stands for any run, an empty one too; the text around it is
// taken at its word.
func TestGlob(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "", true}, {"*", "a/b:c", true}, {"a*", "a", true}, {"a*a", "a", false}, {"a*a", "aa", true},
		{"a*b*c", "a-b-b-c", true}, {"a*b*c", "acb", false}, {"*b*", "abc", true}, {"*ab*ab*", "ab", false}, {"**", "x", true},
		{"a.b*", "axb", false}, {"*.io/x", "q.io/x", true}, {"*.io/x", "q.io/x2", false}, {"abc", "abc", true}, {"abc", "abcd", false},
	} {
		if got := parseGlob(tc.pattern).match(tc.text); got != tc.want {
			t.Errorf("%q matches %q: %t, want %t", tc.pattern, tc.text, got, tc.want)
		}
	}
}

// BenchmarkPinsOf asks for each of 100,000 images, with 1,000 references and 100
// patterns pinned.
func BenchmarkPinsOf(b *testing.B) {
	s := openStore(b, b.TempDir())
	var pins []Pin
	for i := range 1000 {
		pins = append(pins, Pin{Name: fmt.Sprintf("registry.example/team/app-%d:1", i)})
	}
	for i := range 100 {
		pins = append(pins, Pin{Name: fmt.Sprintf("registry.example/base-%d/*:*-lts", i)})
	}
	s.SetPins(PinOwnerConfig, pins)
	dgst := digest.FromString("x")
	names := make([]string, 100_000)
	for i := range names {
		names[i] = fmt.Sprintf("registry.example/team/app-%d:%d", i%5000, i)
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, name := range names {
			if _, err := s.PinsOf(name, dgst); err != nil {
				b.Fatal(err)
			}
		}
	}
}
