package remotes

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

const ecrRegistry = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"

// names has the built-in rules, larder at localhost:5929, and all ECR hosts.
func names(t testing.TB) Names {
	t.Helper()
	rules, err := NewRules(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	all, err := ParsePattern("*")
	if err != nil {
		t.Fatal(err)
	}
	return Names{Rules: rules, Own: map[string]bool{"localhost:5929": true, "larder.internal": true}, ECRHosts: []Pattern{all}}
}

// Three forms of a name reach one repository.
func TestThreeFormsOneRepository(t *testing.T) {
	t.Parallel()
	n := names(t)
	want := Repository{Host: DockerHub, Path: "library/nginx"}
	for _, c := range [][2]string{
		{"docker.io", "library/nginx"},
		{"index.docker.io", "library/nginx"},
		{"registry-1.docker.io", "library/nginx"},
		{"Docker.IO", "library/nginx"},
		{"", "docker-hub/library/nginx"},
		{"localhost:5929", "docker-hub/library/nginx"},
		{"larder.internal", "docker-hub/library/nginx"},
		{ecrRegistry, "docker-hub/library/nginx"},
		{"123456789012.dkr-ecr-fips.us-gov-east-1.on.aws", "docker-hub/library/nginx"},
	} {
		if got, err := n.Map(c[0], c[1]); err != nil || got != want {
			t.Errorf("ns=%s %s: got %v, %v, want %v", c[0], c[1], got, err, want)
		}
	}
}

func TestNamesMapOthers(t *testing.T) {
	t.Parallel()
	n := names(t)
	for _, c := range [][3]string{
		{"quay.io", "org/app", "quay.io/org/app"},
		{"registry.example:5000", "app", "registry.example:5000/app"},
		// An ECR path that no rule covers is that registry's own.
		{ecrRegistry, "team/app", ecrRegistry + "/team/app"},
		// The prefix means nothing on other hosts.
		{"quay.io", "docker-hub/library/nginx", "quay.io/docker-hub/library/nginx"},
	} {
		if got, err := n.Map(c[0], c[1]); err != nil || got.String() != c[2] {
			t.Errorf("ns=%s %s: got %v, %v, want %s", c[0], c[1], got, err, c[2])
		}
	}
	for _, path := range []string{"library/nginx", "nginx"} {
		for _, ns := range []string{"", "localhost:5929"} {
			if got, err := n.Map(ns, path); !errdefs.IsNotFound(err) {
				t.Errorf("ns=%q %s: got %v, %v, want no rule", ns, path, got, err)
			}
		}
	}
}

// What an account has pushed below the prefix of a built-in rule is its own. To
// fetch it from whoever has that name at the rule's upstream would be dependency
// confusion: built-in rules hold only on ECR hosts that are named.
func TestECRHostsAreTheirOwn(t *testing.T) {
	t.Parallel()
	only, err := ParsePattern("123456789012.*.eu-*")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := strings.Replace(ecrRegistry, "eu-", "us-", 1)
	for _, c := range []struct {
		ecrHosts []Pattern
		host     string
		want     string
	}{
		{nil, ecrRegistry, ecrRegistry + "/github/foo"},
		{[]Pattern{only}, ecrRegistry, "ghcr.io/foo"},
		{[]Pattern{only}, elsewhere, elsewhere + "/github/foo"},
		{nil, "localhost:5929", "ghcr.io/foo"},
		{nil, "", "ghcr.io/foo"},
	} {
		n := names(t)
		n.ECRHosts = c.ecrHosts
		if got, err := n.Map(c.host, "github/foo"); err != nil || got.String() != c.want {
			t.Errorf("%d ECR hosts, ns=%q: got %v, %v, want %s", len(c.ecrHosts), c.host, got, err, c.want)
		}
	}
}

// Configured rules hold on ECR hosts, those of an account only on its own.
func TestConfiguredRulesOnECRHosts(t *testing.T) {
	t.Parallel()
	rules, err := NewRules([]Rule{
		{ECRRepositoryPrefix: "hub", UpstreamRegistryURL: "registry-1.docker.io"},
		{ECRRepositoryPrefix: "hub/mine", UpstreamRegistryURL: "quay.io", RegistryID: "123456789012"},
		{ECRRepositoryPrefix: "github", UpstreamRegistryURL: "registry.example", RegistryID: "123456789012"}, // in place of the built-in one
	}, true)
	if err != nil {
		t.Fatal(err)
	}
	all, err := ParsePattern("*")
	if err != nil {
		t.Fatal(err)
	}
	other := "210987654321" + ecrRegistry[12:]
	for _, c := range []struct {
		ecrHosts         []Pattern
		host, path, want string
	}{
		{nil, ecrRegistry, "hub/x", "docker.io/x"},
		{nil, other, "hub/x", "docker.io/x"},
		{nil, ecrRegistry, "hub/mine/x", "quay.io/x"},
		{nil, other, "hub/mine/x", "docker.io/mine/x"},
		{nil, ecrRegistry + ":443", "hub/mine/x", "quay.io/x"},
		{nil, other, "github/x", other + "/github/x"},
		{[]Pattern{all}, other, "github/x", other + "/github/x"}, // the built-in rule was replaced
		{[]Pattern{all}, other, "quay/x", "quay.io/x"},
		{nil, "localhost:5929", "hub/mine/x", "quay.io/x"}, // of any account
		{nil, "", "github/x", "registry.example/x"},
	} {
		n := Names{Rules: rules, Own: map[string]bool{"localhost:5929": true}, ECRHosts: c.ecrHosts}
		if got, err := n.Map(c.host, c.path); err != nil || got.String() != c.want {
			t.Errorf("ns=%q %s: got %v, %v, want %s", c.host, c.path, got, err, c.want)
		}
	}
}

func TestNamesListed(t *testing.T) {
	t.Parallel()
	n := names(t)
	n.Listed = map[string]bool{"quay.io": true}
	for ns, ok := range map[string]bool{"quay.io": true, "QUAY.io": true, "docker.io": false, ecrRegistry: false} {
		if _, err := n.Map(ns, "team/app"); (err == nil) != ok || !ok && !errdefs.IsPermissionDenied(err) {
			t.Errorf("ns=%s: got %v, want served: %t", ns, err, ok)
		}
	}
	// What a rule maps, a rule has listed.
	if got, err := n.Map("", "docker-hub/library/nginx"); err != nil || got.Host != DockerHub {
		t.Errorf("got %v, %v, want the rule's repository", got, err)
	}
}

func TestNamesRefuseMalformed(t *testing.T) {
	t.Parallel()
	n := names(t)
	for _, path := range []string{
		"", "/", "a//b", "../etc", "a/../b", "a/./b", ".", "Library/nginx", "a\x00b", "a b", "a:b", "a@b", "/a", "a/", "ä/b",
		"docker-hub/../x", "docker-hub//x", strings.Repeat("a", 256), "docker-hub/" + strings.Repeat("a/", 200) + "a", "%2e%2e/a",
	} {
		for _, ns := range []string{"", "docker.io", "localhost:5929", ecrRegistry} {
			if got, err := n.Map(ns, path); !errdefs.IsInvalidArgument(err) {
				t.Errorf("ns=%q %.40q: got %v, %v, want it refused", ns, path, got, err)
			}
		}
	}
	if _, err := n.Map("docker.io", strings.Repeat("a", 255)); err != nil {
		t.Errorf("a path of 255 bytes: %v", err)
	}
}

// FuzzNames: whatever is asked, the mapping does not panic, and what it returns
// is canonical and reads back as itself.
func FuzzNames(f *testing.F) {
	f.Add("docker.io", "library/nginx", "latest")
	f.Add("", "docker-hub/library/nginx", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
	f.Add(ecrRegistry, "quay/a/b", "v1")
	f.Add("[::1]:5000", "a", "_")
	f.Add("LOCALHOST", "a__b/c", "A.b-c_d")
	n := names(f)
	f.Fuzz(func(t *testing.T, ns, path, object string) {
		repo, err := n.Map(ns, path)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) && !errdefs.IsNotFound(err) {
				t.Fatalf("%q %q: error of no kind: %v", ns, path, err)
			}
			return
		}
		if again, err := NewRepository(repo.Host, repo.Path); err != nil || again != repo {
			t.Fatalf("%q %q: %v is not canonical: %v, %v", ns, path, repo, again, err)
		}
		ref, err := repo.WithObject(object)
		if err != nil {
			return
		}
		if again, err := parseName(ref.String()); err != nil || again != ref {
			t.Fatalf("%v reads back as %v, %v", ref, again, err)
		}
	})
}
