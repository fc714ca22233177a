package ecrrules

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"

	"github.com/larder-project/larder/remotes"
)

var update = flag.Bool("update", false, "write the golden files")

// everyKind has a rule for each way in which an account takes one or not.
func everyKind() []remotes.Rule {
	hour := time.Hour
	return append(describedRules(),
		remotes.Rule{ECRRepositoryPrefix: "ecr-public", UpstreamRegistryURL: "public.ecr.aws", UpstreamRepositoryPrefix: remotes.Root},
		remotes.Rule{ECRRepositoryPrefix: "hub2/", UpstreamRegistryURL: "docker.io", CredentialFile: "/etc/larder/hub's\nsecret"},
		remotes.Rule{ECRRepositoryPrefix: "a-b", UpstreamRegistryURL: "quay.io", Settings: remotes.Settings{
			Window: &hour, Allow: []string{"org/*"}, ImageTagMutability: "IMMUTABLE", LifecyclePolicy: countPolicy,
		}},
		remotes.Rule{ECRRepositoryPrefix: "a_b", UpstreamRegistryURL: "registry.k8s.io", CustomRoleARN: "arn:aws:iam::123456789012:role/pull"},
		remotes.Rule{ECRRepositoryPrefix: "harbor", UpstreamRegistryURL: "harbor.example:8443", UpstreamRepositoryPrefix: "proxy"},
		remotes.Rule{ECRRepositoryPrefix: "org", UpstreamRegistryURL: "ghcr.io", UpstreamRepositoryPrefix: "org"},
		remotes.Rule{ECRRepositoryPrefix: "1e10", UpstreamRegistryURL: "mine.azurecr.io", CredentialARN: secretARN},
		remotes.Rule{ECRRepositoryPrefix: remotes.Root, UpstreamRegistryURL: "210987654321.dkr.ecr.us-east-1.amazonaws.com"},
	)
}

// everyTemplate has a template for each way in which an account takes one or not.
func everyTemplate() []remotes.Template {
	return append(describedTemplates(),
		remotes.Template{Prefix: "docker.io/library", Settings: remotes.Settings{Mode: remotes.ModeOffline, LifecyclePolicy: idlePolicy}},
		remotes.Template{Prefix: "only/larder's", Settings: remotes.Settings{Mode: remotes.ModeOffline}},
	)
}

func TestExportGolden(t *testing.T) {
	t.Parallel()
	for as, file := range map[Format]string{
		FormatCLI: "rules.sh", FormatTerraform: "rules.tf", FormatCloudFormation: "rules.yaml", FormatJSON: "rules.json",
	} {
		got, _, err := Export(everyKind(), everyTemplate(), as)
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", file)
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-golden +got; -update writes it):\n%s", file, diff)
		}
	}
}

func TestExportWarns(t *testing.T) {
	t.Parallel()
	for _, as := range Formats() {
		text, warnings, err := Export(everyKind(), everyTemplate(), as)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`rule "hub2/": without credential_file`, `rule "hub2/": ECR wants a credential for docker-hub: put the content of "/etc/larder/hub's\nsecret"`,
			`rule "a-b": without window, allow, which`, `rule "a-b": without image_tag_mutability: `, `rule "a-b": without lifecycle_policy: `, `rule "a_b": without custom_role_arn: `,
			`template "only/larder's": left out: ECR has nothing for its settings`, `template "docker.io/library": without mode, which only larder has`,
			`template "docker.io/library": ECR refuses rule 1 of its lifecycle_policy: it takes sinceImagePulled with transition only`,
			`template "docker.io/library": larder takes the prefix for a registry host, too`,
			`rule "harbor": left out: ECR has no upstream "harbor.example:8443"`, `rule "org": left out: ECR takes upstream_repository_prefix ("org")`,
		} {
			if !slices.ContainsFunc(warnings, func(w string) bool { return strings.HasPrefix(w, want) }) {
				t.Errorf("%s: no warning %s in\n%s", as, want, strings.Join(warnings, "\n"))
			}
			if as != FormatJSON && !strings.Contains(string(text), "# "+want) {
				t.Errorf("%s: no comment %s", as, want)
			}
		}
		if strings.Contains(string(text), `"harbor"`) && as == FormatJSON {
			t.Errorf("%s has the rule that ECR does not take", as)
		}
	}
	var many []remotes.Rule
	for i := range maxAccountRules + 1 {
		many = append(many, remotes.Rule{ECRRepositoryPrefix: "p" + strings.Repeat("a", i/10+1) + string(rune('0'+i%10)), UpstreamRegistryURL: "quay.io"})
	}
	if _, warnings, err := Export(many, nil, FormatCLI); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "ECR takes 50") {
		t.Errorf("got %v, %v", warnings, err)
	}
	if _, _, err := Export(nil, nil, "pulumi"); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "terraform") {
		t.Errorf("got %v", err)
	}
}

// TestRoundTrip: from an account and back.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rules := append(describedRules(), remotes.Rule{ECRRepositoryPrefix: "kubernetes", UpstreamRegistryURL: "registry.k8s.io", UpstreamRegistry: "k8s"})
	text, warnings, err := Export(rules, nil, FormatJSON)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v, %v", warnings, err)
	}
	got, err := Decode(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rules, got.Rules); diff != "" {
		t.Error(diff)
	}
}

// hostile are values that mean something to one format or another.
func hostile() []string {
	return []string{
		"plain", "", " ", "it's", `"double"`, `back\slash`, "$(reboot)", "`reboot`", "${path}", "%{if x}", "$${x}", "a\nb = 1", "a\r\nb", "'''", `"""`,
		"tab\t", "nul\x00", "esc\x1b[2J", "\u2028", "ünïcode", "\U0001f4a3", "# comment", "key: value", "- item", "[table]", "yes", "0x10", "1e3", "~", "!!str x", "*a", "&a", "\u0085",
	}
}

func TestTOMLReadsBack(t *testing.T) {
	t.Parallel()
	window := 90 * time.Minute
	for _, s := range hostile() {
		rule := remotes.Rule{
			ECRRepositoryPrefix: s, UpstreamRegistryURL: s, UpstreamRegistry: s, UpstreamRepositoryPrefix: s, CredentialARN: s, CustomRoleARN: s,
			RegistryID: s, CredentialFile: s,
			Settings: remotes.Settings{
				Mode: remotes.Mode(s), Private: remotes.Privacy(s), Window: &window, Deleted: s, ImageTagMutability: s,
				ImageTagMutabilityExclusionFilters: []string{s}, Allow: []string{s, s}, Deny: []string{s},
				LifecyclePolicy: s,
			},
		}
		text, err := TOML([]remotes.Rule{rule, rule}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Rules []map[string]any }
		if err := toml.Unmarshal(text, &got); err != nil {
			t.Errorf("%q: %v in\n%s", s, err, text)
			continue
		}
		want := map[string]any{
			"ecr_repository_prefix": s, "upstream_registry_url": s, "upstream_registry": s, "upstream_repository_prefix": s, "credential_arn": s,
			"custom_role_arn": s, "registry_id": s, "credential_file": s, "mode": s, "private": s, "window": "1h30m", "deleted": s,
			"image_tag_mutability": s, "image_tag_mutability_exclusion_filters": []any{s}, "allow": []any{s, s}, "deny": []any{s},
			"lifecycle_policy": s,
		}
		if s == "" {
			for k, v := range want {
				if v == "" && k != "ecr_repository_prefix" && k != "upstream_registry_url" {
					delete(want, k)
				}
			}
		}
		if diff := cmp.Diff([]map[string]any{want, want}, got.Rules); diff != "" {
			t.Errorf("%q:\n%s\n%s", s, diff, text)
		}
	}
}

func TestTOMLGolden(t *testing.T) {
	t.Parallel()
	got, err := TOML(describedRules(), describedTemplates())
	if err != nil {
		t.Fatal(err)
	}
	const want = `[[rules]]
ecr_repository_prefix = "docker-hub"
upstream_registry_url = "registry-1.docker.io"
upstream_registry = "docker-hub"
credential_arn = "` + secretARN + `"
registry_id = "123456789012"

[[rules]]
ecr_repository_prefix = "team/a"
upstream_registry_url = "210987654321.dkr.ecr.us-east-1.amazonaws.com"
upstream_registry = "ecr"
upstream_repository_prefix = "apps"
custom_role_arn = "arn:aws:iam::123456789012:role/pull"
registry_id = "123456789012"

[[templates]]
prefix = "docker-hub"
image_tag_mutability = "IMMUTABLE_WITH_EXCLUSION"
image_tag_mutability_exclusion_filters = ["latest", "dev-*"]
lifecycle_policy = '` + countPolicy + `'

[[templates]]
prefix = "ROOT"
image_tag_mutability = "IMMUTABLE"
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

// TestShellReadsBack asks a shell.
func TestShellReadsBack(t *testing.T) {
	t.Parallel()
	for _, s := range hostile() {
		if strings.Contains(s, "\x00") {
			continue // no shell has it in a word
		}
		out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", "printf %s "+shellQuote(s)+"; printf .").Output()
		if err != nil || string(out) != s+"." {
			t.Errorf("%q became %q, %v", s, out, err)
		}
	}
}

func TestHCLQuote(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"plain": `"plain"`, `"`: `"\""`, `\`: `"\\"`, "a\nb\r\t": `"a\nb\r\t"`, "${path}": `"$${path}"`, "%{if}": `"%%{if}"`,
		"$${x}": `"$$${x}"`, "$x %y $": `"$x %y $"`, "\x00\x1b": `"\u0000\u001b"`, "\u2028": `"\u2028"`, "\U000e0001": `"\U000e0001"`, "ü'": `"ü'"`,
	} {
		if got := hclQuote(s); got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}

func TestYAMLReadsBack(t *testing.T) {
	t.Parallel()
	for _, s := range hostile() {
		it := item{Entry: Entry{ECRRepositoryPrefix: "a1", UpstreamRegistryURL: "x", CredentialARN: s}}
		it.note("%q", s)
		template := templateItem{TemplateEntry: TemplateEntry{Prefix: "b", LifecyclePolicy: s, ExclusionFilters: []ExclusionFilter{{wildcard, s}}}}
		template.note("%q", s)
		data, err := writeCloudFormation([]item{it, {Entry: it.Entry, notable: notable{left: true, notes: it.notes}}}, []templateItem{template})
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Version   any `yaml:"AWSTemplateFormatVersion"`
			Resources map[string]struct {
				Type       string
				Properties map[string]any `yaml:"Properties"`
			} `yaml:"Resources"`
		}
		if err := yaml.Unmarshal(data, &got); err != nil {
			t.Errorf("%q: %v in\n%s", s, err, data)
			continue
		}
		if v, ok := got.Resources["A1Rule"].Properties["CredentialArn"]; len(got.Resources) != 2 || got.Version != "2010-09-09" || v != s && (ok || s != "") {
			t.Errorf("%q: got %+v from\n%s", s, got, data)
		}
		if v, ok := got.Resources["BTemplate"].Properties["LifecyclePolicy"]; v != s && (ok || s != "") {
			t.Errorf("%q: got %+v from\n%s", s, got, data)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string][2]string{
		"docker-hub": {"docker_hub", "DockerHubRule"}, "ROOT": {"root", "RootRule"}, "a/b.c/": {"a_b_c", "ABCRule"}, "1e10": {"_1e10", "1e10Rule"},
	} {
		if got := [2]string{terraformName(prefix), logicalID(prefix, "Rule")}; got != want {
			t.Errorf("%s: got %q, want %q", prefix, got, want)
		}
	}
	u := unique{}
	if got := []string{u.next("a", "_"), u.next("a", "_"), u.next("a_2", "_"), u.next("a", "_")}; !slices.Equal(got, []string{"a", "a_2", "a_2_2", "a_3"}) {
		t.Errorf("got %q", got)
	}
}
