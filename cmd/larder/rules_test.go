package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/cmd/larder/ecrrules"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
)

const threeRules = `# by hand
[[rules]]
ecr_repository_prefix = "team"
upstream_registry_url = "registry.example"
upstream_repository_prefix = "apps"

[[rules]]
ecr_repository_prefix = "team/sub"
upstream_registry_url = "quay.io" # ours

[[rules]]
ecr_repository_prefix = "ROOT"
upstream_registry_url = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
`

// larder runs a verb with a configuration and no daemon.
func larder(t *testing.T, configuration, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRootCommand(&options{stdout: &out, stderr: &errs})
	root.SetIn(strings.NewReader(stdin))
	code = execute(t.Context(), root, append(args, "--config", configuration), &errs)
	return code, out.String(), errs.String()
}

func mustLarder(t *testing.T, configuration, stdin string, args ...string) string {
	t.Helper()
	code, stdout, stderr := larder(t, configuration, stdin, args...)
	if code != 0 {
		t.Fatalf("larder %s: exit %d\n%s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

func TestRulesList(t *testing.T) {
	t.Parallel()
	file := configFile(t, threeRules)
	list := decodeJSON[rulesJSON[ruleJSON]](t, mustLarder(t, file, "", "rules", "ls", "--json")).Rules
	var got []string
	for _, r := range list {
		got = append(got, r.ECRRepositoryPrefix+" "+r.Origin)
	}
	want := []string{
		"ecr-public built-in", "kubernetes built-in", "docker-hub built-in", "chainguard built-in", "team/sub config",
		"github built-in", "gitlab built-in", "team config", "quay built-in", "ROOT config",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if r := list[4]; r.UpstreamRegistry != "quay" || r.UpstreamRepositoryPrefix != "ROOT" || r.Credential != "none" {
		t.Errorf("got %+v", r)
	}
	lines := strings.Split(mustLarder(t, file, "", "rules", "ls"), "\n")
	if got := strings.Fields(lines[8]); !slices.Equal(got, []string{"team", "registry.example", "apps", "-", "none", "config"}) {
		t.Errorf("got %q in\n%s", got, strings.Join(lines, "\n"))
	}
	for _, r := range []remotes.Rule{{CredentialFile: "/x", CredentialARN: "arn"}, {CredentialARN: "arn"}, {CustomRoleARN: "role"}, {}} {
		if got, want := credentialOf(r), map[string]string{"/xarn": "file", "arn": "arn", "role": "role", "": "none"}[r.CredentialFile+r.CredentialARN+r.CustomRoleARN]; got != want {
			t.Errorf("%+v: got %s, want %s", r, got, want)
		}
	}
}

func TestRulesTry(t *testing.T) {
	t.Parallel()
	file := configFile(t, threeRules+`
[mirror]
address = ":5930"
[names]
ecr_hosts = ["1*"]
[[routes]]
registry = "registry.example"
upstreams = ["http://10.0.0.1:5000/copy", "registry.example"]
`)
	dgst := "@sha256:" + strings.Repeat("a", 64)
	for name, want := range map[string]trial{
		"localhost/team/app:1": {
			Name: "localhost/team/app:1", Form: remotes.FormOwn, Stored: "registry.example/apps/app:1",
			Upstreams: []string{"http://10.0.0.1:5000/copy", "https://registry.example"},
		},
		"127.0.0.1:5930/quay/a/b" + dgst: {
			Name: "127.0.0.1:5930/quay/a/b" + dgst, Form: remotes.FormOwn, Stored: "quay.io/a/b" + dgst, Upstreams: []string{"https://quay.io"},
		},
		"docker-hub/library/nginx": {
			Name: "docker.io/docker-hub/library/nginx:latest", Form: remotes.FormHost, Stored: "docker.io/docker-hub/library/nginx:latest",
			Upstreams: []string{"https://registry-1.docker.io"}, Reason: "the name has its registry host and needs none",
			Hint: "a rule covers docker-hub/library/nginx on larder's own address: write localhost/docker-hub/library/nginx",
		},
	} {
		got := decodeJSON[trial](t, mustLarder(t, file, "", "rules", "test", "--json", name))
		got.Rule, got.Treatment = nil, nil
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	text := mustLarder(t, file, "", "rules", "test", "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/sub/x:2")
	for _, want := range []string{"to which the rules apply", "team/sub -> quay.io", "(config)", "quay.io/x:2", "upstream 1"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	none := configFile(t, "[names]\nbuiltin_rules = false\nunlisted = \"deny\"\n")
	for name, want := range map[string]string{"localhost/quay/a/b": "no rule covers it", "quay.io/a/b": "is not listed"} {
		code, stdout, stderr := larder(t, none, "", "rules", "test", name)
		if code != exitFailure || !strings.Contains(stderr, want) || !strings.Contains(stdout, "rule        none: ") && !strings.Contains(stdout, "rule   ") {
			t.Errorf("%s: exit %d\n%s\n%s", name, code, stdout, stderr)
		}
	}
}

// TestRulesTryTreatment: what rules and templates say of the stored name is told,
// under whichever name it was asked for.
func TestRulesTryTreatment(t *testing.T) {
	t.Parallel()
	file := configFile(t, `
[freshness]
deleted = "warn"
[[freshness.tags]]
match = "*:edge"
window = "10m"
[[rules]]
ecr_repository_prefix = "hub"
upstream_registry_url = "docker.io"
window = "1h"
deny = ["evil/*"]
image_tag_mutability = "MUTABLE_WITH_EXCLUSION"
image_tag_mutability_exclusion_filters = ["v*"]
[[templates]]
prefix = "hub/team"
private = "verify"
mode = "upstream-first"
`)
	for name, want := range map[string]string{
		"localhost/hub/app:1":                             "cache-first, private: no, window: 1h, when deleted upstream: warn\n",
		"docker.io/app:edge":                              "cache-first, private: no, window: 10m, when deleted upstream: warn\n",
		"docker.io/app:v1":                                "cache-first, private: no, window: unlimited, once stored it never moves\n",
		"localhost/hub/team/a:1":                          "upstream-first, private: verify, window: 0s, when deleted upstream: warn\n",
		"quay.io/team/a:1":                                "cache-first, private: no, window: 24h, when deleted upstream: warn\n",
		"docker.io/app@sha256:" + strings.Repeat("a", 64): "cache-first, private: no\n",
	} {
		if out := mustLarder(t, file, "", "rules", "test", name); !strings.Contains(out, "treated      "+want) {
			t.Errorf("%s: no %q in\n%s", name, want, out)
		}
	}
	const refused = `repository docker.io/evil/app is denied by rule "hub", which has deny = "evil/*"`
	for _, name := range []string{"localhost/hub/evil/app", "evil/app"} {
		code, stdout, stderr := larder(t, file, "", "rules", "test", name)
		if code != exitFailure || stderr != "larder: "+refused+"\n" || !strings.Contains(stdout, "refused      "+refused+"\n") {
			t.Errorf("%s: exit %d\n%s\n%s", name, code, stdout, stderr)
		}
	}
}

func TestRulesValidate(t *testing.T) {
	t.Parallel()
	open, down := remotestest.New(t, remotestest.WithToken()), remotestest.New(t)
	down.Stop()
	file := configFile(t, fmt.Sprintf(`
[names]
builtin_rules = false
[[routes]]
registry = "registry.example"
upstreams = [%q]
[[routes]]
registry = "quay.io"
upstreams = [%q]
[[rules]]
ecr_repository_prefix = "team"
upstream_registry_url = "registry.example"
[[rules]]
ecr_repository_prefix = "team/sub"
upstream_registry_url = "quay.io"
`, open.URL(), down.URL()))
	code, stdout, stderr := larder(t, file, "", "rules", "validate", "--json")
	got := decodeJSON[rulesJSON[validity]](t, stdout).Rules
	if code != exitFailure || stderr != "larder: 1 of 2 rules invalid: team/sub\n" || len(got) != 2 {
		t.Fatalf("exit %d, %+v, %s", code, got, stderr)
	}
	if bad, good := got[0], got[1]; bad.ECRRepositoryPrefix != "team/sub" || bad.UpstreamRepositoryPrefix != remotes.Root || bad.IsValid || !strings.Contains(bad.Failure, "refused") || !good.IsValid || good.Failure != "" {
		t.Errorf("got %+v", got)
	}
	if table := mustLarder(t, file, "", "rules", "validate", "team/"); !strings.Contains(table, "team     registry.example   yes     -\n") || strings.Contains(table, "quay") {
		t.Errorf("got\n%s", table)
	}
}

func TestRulesValidateIsBounded(t *testing.T) {
	t.Parallel()
	silent := remotestest.New(t)
	silent.Fault(remotestest.Any(), remotestest.Hang())
	file := configFile(t, fmt.Sprintf("[names]\nbuiltin_rules = false\n[[routes]]\nregistry = \"quay.io\"\nupstreams = [%q]\n"+
		"[[rules]]\necr_repository_prefix = \"q1\"\nupstream_registry_url = \"quay.io\"\n", silent.URL()))
	code, stdout, _ := larder(t, file, "", "rules", "validate", "--timeout", "50ms")
	if code != exitFailure || !strings.Contains(stdout, "no answer within 50ms") {
		t.Errorf("exit %d\n%s", code, stdout)
	}
}

// plainRules are two rules with keys that every version of larder knows.
const plainRules = `{"pullThroughCacheRules":[
{"ecrRepositoryPrefix":"k8s","upstreamRegistryUrl":"registry.k8s.io","upstreamRegistry":"k8s","createdAt":"2026-11-01T10:00:00+01:00"},
{"ecrRepositoryPrefix":"team/sub","upstreamRegistryUrl":"quay.io"},
{"ecrRepositoryPrefix":"team","upstreamRegistryUrl":"public.ecr.aws"}]}`

func TestRulesImport(t *testing.T) {
	t.Parallel()
	none := configFile(t, "")
	const want = "[[rules]]\necr_repository_prefix = \"k8s\"\nupstream_registry_url = \"registry.k8s.io\"\nupstream_registry = \"k8s\"\n\n[[rules]]\n"
	if got := mustLarder(t, none, plainRules, "rules", "import", "-"); !strings.HasPrefix(got, want) {
		t.Errorf("stdin: got\n%s", got)
	}
	if got := mustLarder(t, none, "", "rules", "import", configFile(t, plainRules)); !strings.HasPrefix(got, want) {
		t.Errorf("file: got\n%s", got)
	}
	_, _, stderr := larder(t, none, `{"pullThroughCacheRules":[],"NextToken":"abc"}`, "rules", "import", "-")
	if !strings.Contains(stderr, "warning: stdin: the list goes on") {
		t.Errorf("a page: %s", stderr)
	}
}

// TestRulesImportAppendIsServed: rules with which the daemon would not start are
// not added. Another fault of the file is not theirs.
func TestRulesImportAppendIsServed(t *testing.T) {
	t.Parallel()
	const rule = `{"pullThroughCacheRules":[{"ecrRepositoryPrefix":"hub2","upstreamRegistryUrl":"registry-1.docker.io",
"credentialArn":"arn:aws:secretsmanager:eu-central-1:123456789012:secret:ecr-pullthroughcache/other-a1b2c3"}]}`
	const own = "[[rules]]\necr_repository_prefix = \"hub\"\nupstream_registry_url = \"docker.io\"\ncredential_file = \"/one.json\"\n"
	file := configFile(t, own)
	code, _, stderr := larder(t, file, rule, "rules", "import", "-", "--append")
	if data, err := os.ReadFile(file); code != exitUsage || !strings.Contains(stderr, "two rules name different credentials") || err != nil || string(data) != own {
		t.Errorf("exit %d, %s%s%v", code, stderr, data, err)
	}
	const broken = "[credentials]\nkubelet_config = \"/none\"\nkubelet_bin_dir = \"/none\"\n"
	if out := mustLarder(t, configFile(t, broken), rule, "rules", "import", "-", "--append"); !strings.Contains(out, "added    hub2") {
		t.Errorf("got %s", out)
	}
}

func TestRulesImportAppend(t *testing.T) {
	t.Parallel()
	file := configFile(t, threeRules)
	out := mustLarder(t, file, plainRules, "rules", "import", "-", "--append")
	for _, want := range []string{
		"added    k8s -> registry.k8s.io\n", "skipped  team/sub (is configured already, the same)\n",
		"skipped  team (is configured already, differently: its upstream there is registry.example)\n", file + ": 1 rule added",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(data); !strings.HasPrefix(got, threeRules+"\n[[rules]]\necr_repository_prefix = \"k8s\"\n") {
		t.Errorf("got\n%s", got)
	}
	if again := mustLarder(t, file, plainRules, "rules", "import", "-", "--append"); !strings.Contains(again, "nothing to add") {
		t.Errorf("again:\n%s", again)
	}
	if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, data) {
		t.Errorf("the second time changed the file to\n%s", now)
	}
	code, _, stderr := larder(t, configFile(t, "[[rules"), plainRules, "rules", "import", "-", "--append")
	if code != exitUsage || !strings.Contains(stderr, "config.toml:1:") {
		t.Errorf("broken configuration: exit %d, %s", code, stderr)
	}
}

// TestRulesImportAsksAWS runs the real program: region, credentials and
// endpoint come from its environment.
func TestRulesImportAsksAWS(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("X-Amz-Target") + " " + r.Header.Get("Authorization")
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		fmt.Fprint(w, `{"pullThroughCacheRules":[{"ecrRepositoryPrefix":"k8s","upstreamRegistryUrl":"registry.k8s.io","createdAt":1793523600.5}]}`)
	}))
	t.Cleanup(srv.Close)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "rules", "import", "--region", "eu-north-1", "--config", configFile(t, ""))
	cmd.Env = []string{
		asLarder + "=1", "AWS_ENDPOINT_URL_ECR=" + srv.URL, "AWS_ACCESS_KEY_ID=AKIATEST", "AWS_SECRET_ACCESS_KEY=hunter2",
		"AWS_EC2_METADATA_DISABLED=true", "HOME=" + t.TempDir(),
	}
	out, err := cmd.CombinedOutput()
	if want := "[[rules]]\necr_repository_prefix = \"k8s\"\nupstream_registry_url = \"registry.k8s.io\"\n"; err != nil || string(out) != want {
		t.Errorf("got %v\n%s", err, out)
	}
	if got := <-asked; !strings.Contains(got, ".DescribePullThroughCacheRules ") || !strings.Contains(got, "/eu-north-1/ecr/") {
		t.Errorf("asked %s", got)
	}
	for name, tc := range map[string]struct {
		env  []string
		want string
	}{
		"no region":      {[]string{"AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b"}, "--region"},
		"no credentials": {[]string{"AWS_REGION=eu-north-1"}, "no AWS credentials"},
		"no profile":     {[]string{"AWS_REGION=eu-north-1", "AWS_PROFILE=nobody"}, "nobody"},
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "rules", "import")
		cmd.Env = append(tc.env, asLarder+"=1", "AWS_ENDPOINT_URL_ECR="+srv.URL, "AWS_EC2_METADATA_DISABLED=true", "HOME="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), tc.want) {
			t.Errorf("%s: got %v\n%s", name, err, out)
		}
	}
}

// TestRulesMoveThere: out of one configuration and into another by way of an
// account.
func TestRulesMoveThere(t *testing.T) {
	t.Parallel()
	from := configFile(t, `
[[rules]]
ecr_repository_prefix = "hub"
upstream_registry_url = "registry-1.docker.io"
upstream_registry = "docker-hub"
[[rules]]
ecr_repository_prefix = "team/a"
upstream_registry_url = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
upstream_registry = "ecr"
upstream_repository_prefix = "apps"
[[rules]]
ecr_repository_prefix = "elsewhere"
upstream_registry_url = "harbor.example:8443"
`)
	code, out, stderr := larder(t, from, "", "rules", "export", "--as", "json")
	if code != 0 || !strings.Contains(stderr, `warning: rule "elsewhere": left out: `) || !json.Valid([]byte(out)) {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	to := configFile(t, "")
	mustLarder(t, to, out, "rules", "import", "-", "--append")
	want, err := config.Load(from)
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Load(to)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Rules[:2], got.Rules); diff != "" {
		t.Error(diff)
	}
}

func TestRulesExport(t *testing.T) {
	t.Parallel()
	file := configFile(t, threeRules)
	for as, want := range map[string]string{
		"aws-cli": "aws ecr create-pull-through-cache-rule", "terraform": `resource "aws_ecr_pull_through_cache_rule" "team_sub" {`,
		"cloudformation": "  TeamSubRule:\n", "json": `"ecrRepositoryPrefix": "team/sub"`,
	} {
		_, out, stderr := larder(t, file, "", "rules", "export", "--as", as)
		if !strings.Contains(out, want) || strings.Contains(out, "docker") || !strings.Contains(stderr, `rule "team": left out`) {
			t.Errorf("%s: got\n%s\n%s", as, out, stderr)
		}
		if all := mustLarder(t, file, "", "rules", "export", "--as", as, "--builtin"); !strings.Contains(all, "registry-1.docker.io") || strings.Count(all, "quay.io") != 2 {
			t.Errorf("%s with built-in rules: got\n%s", as, all)
		}
	}
	if code, _, stderr := larder(t, configFile(t, ""), "", "rules", "export"); code != 0 || !strings.Contains(stderr, "--builtin") {
		t.Errorf("nothing configured: exit %d, %s", code, stderr)
	}
}

func TestRulesWrongUse(t *testing.T) {
	t.Parallel()
	file := configFile(t, threeRules)
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"tets"}, exitUsage, `unknown command "tets", did you mean test?`},
		{[]string{"test"}, exitUsage, "rules test: accepts 1 arg"},
		{[]string{"test", "Not A Ref"}, exitFailure, "Not A Ref"},
		{[]string{"ls", "x"}, exitUsage, "takes no arguments"},
		{[]string{"validate", "nope"}, exitFailure, `no rule has the prefix "nope", there are: ecr-public, `},
		{[]string{"validate", "--timeout", "0s"}, exitUsage, "more than 0s"},
		{[]string{"export", "--as", "pulumi"}, exitUsage, `"pulumi": want one of aws-cli, terraform, cloudformation, json`},
		{[]string{"import", "/no/such/file"}, exitFailure, "/no/such/file: no such file"},
		{[]string{"import", "-", "--region", "x"}, exitUsage, "and - is read instead"},
		{[]string{"import", "-"}, exitFailure, "stdin: is empty"},
		{[]string{"import", file}, exitFailure, file + ": not JSON"},
	} {
		code, _, stderr := larder(t, file, "", append([]string{"rules"}, tc.args...)...)
		if code != tc.code || !strings.Contains(stderr, tc.want) {
			t.Errorf("larder rules %s: exit %d, want %d with %q:\n%s", strings.Join(tc.args, " "), code, tc.code, tc.want, stderr)
		}
	}
}

func TestRulesCompletion(t *testing.T) {
	t.Parallel()
	file := configFile(t, threeRules)
	for args, want := range map[string]string{
		"validate ":    "team/sub\tquay.io\n",
		"export --as ": string(ecrrules.FormatTerraform) + "\n",
		"import ":      "json\n",
	} {
		words := append([]string{"__complete", "--config", file, "rules"}, strings.Split(args, " ")...)
		var out, errs bytes.Buffer
		if code := run(t.Context(), words, &out, &errs); code != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%q: exit %d, %s", args, code, out.String())
		}
	}
}
