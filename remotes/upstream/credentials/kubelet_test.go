package credentials

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

// testPlugin is a provider of a kubelet's config.
type testPlugin struct {
	name, match, answer string
	more                string // JSON of further keys
}

// answerOf is a plugin's answer with entries for keys, each of a user of the
// key's name.
func answerOf(scope, duration string, users map[string]string) string {
	auth := map[string]any{}
	for key, user := range users {
		auth[key] = map[string]string{"username": user, "password": planted}
	}
	text, _ := json.Marshal(map[string]any{
		"kind": "CredentialProviderResponse", "apiVersion": pluginVersion, "cacheKeyType": scope, "auth": auth,
	})
	if duration != "" {
		return strings.Replace(string(text), `{`, `{"cacheDuration":`+duration+`,`, 1)
	}
	return string(text)
}

// kubeletOptions writes a config with plugins; all note into one file what
// they are asked.
func kubeletOptions(t *testing.T, plugins ...testPlugin) (Options, string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	var providers []string
	for _, p := range plugins {
		if err := os.Symlink(filepath.Join(os.Getenv(programsDir), "plugin"), filepath.Join(dir, p.name)); err != nil {
			t.Fatal(err)
		}
		env, err := json.Marshal([]map[string]string{
			{"name": "PLUGIN_LOG", "value": log}, {"name": "PLUGIN_ANSWER", "value": p.answer},
		})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(p.more, "FAIL") {
			env = append(env[:len(env)-1], `,{"name":"PLUGIN_FAIL","value":"1"}]`...)
			p.more = ""
		}
		providers = append(providers, fmt.Sprintf(`{"name":%q,"matchImages":[%q],"defaultCacheDuration":"12h","apiVersion":%q,"args":["from",%q],"env":%s%s}`,
			p.name, p.match, pluginVersion, p.name, env, p.more))
	}
	config := filepath.Join(dir, "config.json")
	text := fmt.Sprintf(`{"kind":"CredentialProviderConfig","apiVersion":%q,"providers":[%s]}`, configVersion, strings.Join(providers, ","))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Options{KubeletConfig: config, KubeletBinDir: dir}, log
}

func TestKubeletPlugin(t *testing.T) {
	t.Parallel()
	o, log := kubeletOptions(t, testPlugin{name: "ecr", match: "*.io", answer: answerOf("Registry", "", map[string]string{"docker.io": "hub", "quay.io": "quay"})})
	c, _ := newTest(t, o)
	want(t, c, "registry-1.docker.io", "library/nginx", user("hub"))
	want(t, c, "quay.io", "team/app", user("quay"))
	want(t, c, "ghcr.io", "team/app", upstream.Credential{})
	want(t, c, "registry.example.com", "team/app", upstream.Credential{})
	asked := `from ecr{"apiVersion":"` + pluginVersion + `","image":"docker.io/library/nginx","kind":"CredentialProviderRequest"}`
	if noted(t, log, asked) != 1 {
		text, _ := os.ReadFile(log)
		t.Errorf("the plugin was asked\n%swant once\n%s", text, asked)
	}
	if n := noted(t, log, "example.com"); n != 0 {
		t.Errorf("asked %d times for an image that matchImages leaves out", n)
	}
}

func TestKubeletCacheKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		scope, duration string
		runs            int // for a/1 twice, a/2 and b/1 twice, after a first run that tells the scope
	}{
		{"Image", "", 3}, {"Registry", "", 1}, {"Global", "", 1},
		{"Registry", "null", 1}, {"Registry", `"1h"`, 1}, {"Registry", `"0s"`, 5}, {"Registry", `"0"`, 5}, {"Image", `"0s"`, 5},
	} {
		o, log := kubeletOptions(t, testPlugin{name: "p", match: "*.io", answer: answerOf(c.scope, c.duration, map[string]string{"*.io": "u"})})
		chain, _ := newTest(t, o)
		want(t, chain, "a.io", "team/0", user("u"))
		if c.scope == "Global" {
			want(t, chain, "a.io", "team/0", user("u")) // now by its own key
		}
		before := noted(t, log, "from p")
		for _, at := range [][2]string{{"a.io", "team/1"}, {"a.io", "team/1"}, {"a.io", "team/2"}, {"b.io", "team/1"}, {"b.io", "team/1"}} {
			want(t, chain, at[0], at[1], user("u"))
		}
		runs := noted(t, log, "from p") - before
		if c.scope == "Registry" && runs == c.runs || c.scope == "Global" && runs == 0 || c.scope == "Image" && runs == c.runs {
			continue
		}
		t.Errorf("%s for %q: ran %d times, want %d", c.scope, c.duration, runs, c.runs)
	}
}

// An answer that is found where another image's was expected is not used.
func TestKubeletAnswerOfAnotherImage(t *testing.T) {
	t.Parallel()
	o, log := kubeletOptions(t, testPlugin{name: "p", match: "*.io", answer: answerOf("Image", "", map[string]string{"a.io/team/1": "u"})})
	c, _ := newTest(t, o)
	want(t, c, "a.io", "team/1", user("u"))
	// As if all had come at once, when nothing was known of the plugin.
	c.links[len(c.links)-1].source.(*kubelet).plugins[0].last.Store(scopeRegistry)
	want(t, c, "a.io", "team/2", upstream.Credential{})
	if n := noted(t, log, "a.io/team/2"); n != 1 {
		t.Errorf("asked %d times for the second image, want once", n)
	}
}

func TestKubeletOneRunForManyImages(t *testing.T) {
	t.Parallel()
	o, log := kubeletOptions(t, testPlugin{name: "p", match: "*.io", answer: answerOf("Registry", "", map[string]string{"a.io": "u"})})
	c, _ := newTest(t, o)
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() { want(t, c, "a.io", fmt.Sprintf("team/app%d", i), user("u")) })
	}
	all.Wait()
	if n := noted(t, log, "from p"); n != 1 {
		t.Errorf("the plugin ran %d times for 100 callers, want once", n)
	}
}

func TestKubeletOrder(t *testing.T) {
	t.Parallel()
	o, _ := kubeletOptions(t,
		testPlugin{name: "first", match: "*.io", answer: answerOf("Image", "", map[string]string{
			"quay.io": "first", "*.io": "first-glob", "quay.io/deep": "first-deep",
			"https://index.docker.io/v1/": "first-hub", "ghcr.io": "first-ghcr",
		})},
		testPlugin{name: "second", match: "*.io", answer: answerOf("Image", "", map[string]string{
			"quay.io": "second", "quay.io/team": "second-team", "quay.io/deep": "second-deep",
		})},
		testPlugin{name: "third", match: "docker.io/team", answer: answerOf("Image", "", map[string]string{"docker.io": "third"})},
	)
	c, _ := newTest(t, o)
	for at, name := range map[[2]string]string{
		{"quay.io", "other/app"}:             "first",       // the earlier of equal keys
		{"quay.io", "team/app"}:              "second-team", // the longer key
		{"quay.io", "deep/app"}:              "first-deep",
		{"ghcr.io", "team/app"}:              "first-ghcr", // plain before glob
		{"else.io", "team/app"}:              "first-glob",
		{"registry-1.docker.io", "team/app"}: "third",      // its own key before Docker Hub's general one
		{"registry-1.docker.io", "a/b"}:      "first-glob", // as the kubelet, which asks for index.docker.io last
	} {
		want(t, c, at[0], at[1], user(name))
	}
}

func TestKubeletPluginThatFails(t *testing.T) {
	t.Parallel()
	for answer, text := range map[string]string{
		planted: "no JSON",
		answerOf("Other", "", map[string]string{"a.io": "u"}):                                                     "cacheKeyType",
		answerOf("Image", `"soon `+planted+`"`, nil):                                                              "cacheDuration",
		strings.Replace(answerOf("Image", "", nil), "/v1", "/v1beta1", 1):                                         "no CredentialProviderResponse",
		strings.Replace(answerOf("Image", "", nil), "CredentialProviderResponse", "CredentialProviderRequest", 1): "no CredentialProviderResponse",
		strings.Repeat(planted, 1<<12) + strings.Repeat(" ", 1<<16):                                               "no JSON",
	} {
		o, _ := kubeletOptions(t, testPlugin{name: "p", match: "a.io", answer: answer})
		c, _ := newTest(t, o)
		fails(t, c, errdefs.ErrInvalidArgument, "a.io", "team/app", "kubelet credential provider p", text)
	}
	o, _ := kubeletOptions(t,
		testPlugin{name: "broken", match: "a.io", answer: planted, more: "FAIL"},
		testPlugin{name: "sound", match: "a.io", answer: answerOf("Image", "", map[string]string{"a.io/team": "u"})})
	c, l := newTest(t, o)
	want(t, c, "a.io", "team/app", user("u"))
	if !strings.Contains(l.String(), "provider broken") {
		t.Errorf("no word of the one that failed:\n%s", l)
	}
	fails(t, c, errdefs.ErrUnavailable, "a.io", "other/app", "provider broken", "exit status 1")
	o, _ = kubeletOptions(t, testPlugin{name: "one", match: "a.io", answer: planted}, testPlugin{name: "two", match: "a.io", answer: planted})
	c, _ = newTest(t, o)
	fails(t, c, errdefs.ErrInvalidArgument, "a.io", "team/app", "provider one", "provider two")
}

func TestKubeletConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "plain"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	head := "kind: CredentialProviderConfig\napiVersion: " + configVersion + "\n"
	provider := func(name, rest string) string {
		return "providers:\n- name: " + name + "\n  matchImages: ['*.io']\n  defaultCacheDuration: 12h\n  apiVersion: " + pluginVersion + "\n" + rest
	}
	l := &logs{}
	for text, says := range map[string]string{
		head + provider("p", ""): "",
		head + provider("p", "  env:\n  - {name: A, value: 1}\n  args: [--x]\n"): "",
		head + provider("p", "  somethingNew: {}\n"):                             "",
		head + provider("absent", "  tokenAttributes: {cacheType: Token}\n"):     "",
		planted:                       "not a CredentialProviderConfig",
		"providers: [{name: p}]":      "want a CredentialProviderConfig of",
		head:                          "has no providers",
		head + provider("absent", ""): "not there or cannot be executed",
		head + provider("plain", ""):  "cannot be executed",
		head + provider("../p", ""):   "want the name of a file",
		head + strings.Replace(provider("p", ""), "'*.io'", "", 1):                  "matchImages must be set",
		head + strings.Replace(provider("p", ""), "*.io", "a b", 1):                 "no image pattern",
		head + strings.Replace(provider("p", ""), "defaultCacheDuration", "x", 1):   "defaultCacheDuration must be set",
		head + strings.Replace(provider("p", ""), "k8s.io/v1", "k8s.io/v1beta1", 1): "want " + pluginVersion,
		head + provider("p", "- name: p\n"):                                         "stands twice",
		"a: &a [x,x,x,x,x,x,x,x,x]\n" + bomb():                                      "not a CredentialProviderConfig",
	} {
		file := write(t, "config.yaml", text)
		_, err := New(Options{KubeletConfig: file, KubeletBinDir: dir, Logger: l.logger()})
		if says == "" && err == nil {
			continue
		}
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), planted) {
			t.Errorf("%s: got %v, want it to say %q", text, err, says)
		}
	}
	if n := strings.Count(l.String(), "tokenAttributes"); n != 1 {
		t.Errorf("told %d times of the provider that is not used, want once:\n%s", n, l)
	}
	if _, err := New(Options{KubeletConfig: "/etc/kubelet.json"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("without a folder: got %v", err)
	}
	if _, err := New(Options{KubeletConfig: filepath.Join(dir, "absent"), KubeletBinDir: dir}); !errdefs.IsNotFound(err) {
		t.Errorf("without a file: got %v", err)
	}
}

// bomb is YAML of which each line multiplies the one before it.
func bomb() string {
	var b strings.Builder
	for c := 'b'; c < 'k'; c++ {
		fmt.Fprintf(&b, "%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	return b.String() + "providers: *j\n"
}
