package integration

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// The pull part of the OCI distribution-spec conformance suite. It knows nothing
// of ns, so a rule of its own says what its repositories mean.
const conformanceConfig = `
[[rules]]
ecr_repository_prefix = "conformance"
upstream_registry_url = "registry.example"
upstream_repository_prefix = "conformance"
[[routes]]
registry = "registry.example"
upstreams = [%UPSTREAM%]
`

func TestConformance(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "registry", "conformance")
	registry, meter := b.registry()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 30, Layers: []int64{70_000}, Platforms: []string{"linux/amd64", "linux/arm64"}})
	if err := remotestest.Push(t.Context(), registry.URL, "conformance/repo1", "t1", img); err != nil {
		t.Fatal(err)
	}
	l := b.larder(strings.ReplaceAll(conformanceConfig, "%UPSTREAM%", `"`+meter.URL()+`"`))

	cold := conform(t, b, l, img)
	if meter.Total().Requests == 0 {
		t.Fatal("cold run: nothing passed the meter")
	}
	warm := conform(t, b, l, img)
	if err := meter.Cut(); err != nil {
		t.Fatal(err)
	}
	off := conform(t, b, l, img)
	if len(cold.passed) < 15 || len(cold.failed) > 0 {
		t.Errorf("cold: %v", cold)
	}
	if !slices.Equal(warm.passed, cold.passed) || len(warm.failed) > 0 {
		t.Errorf("warm differs from cold: %v", warm)
	}
	t.Logf("passed cold and warm:\n%s", strings.Join(cold.passed, "\n"))
	// Without upstream, larder cannot know that what it does not have does not
	// exist: it says 503, where the suite, which asks for random names, wants 404.
	for _, name := range slices.Concat(off.failed, missing(cold.passed, off.passed)) {
		if !strings.Contains(name, "/missing-manifest") {
			t.Errorf("upstream off: %s did not pass:\n%s", name, off.report)
		}
	}
}

// missing are the elements of all that some does not have.
func missing(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(some, s) })
}

// conformance is the outcome of one run of the suite.
type conformance struct {
	passed, failed []string // names of its tests; groups of tests too
	report         string
}

// conform runs the suite against larder's mirror.
func conform(t *testing.T, b *bench, l *parts.Larder, img remotestest.Image) conformance {
	t.Helper()
	dir, err := os.MkdirTemp(b.dir, "conformance-") // the suite writes ./results
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.bin.Path("conformance"))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), conformanceEnv(l, img)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// In its read-only mode the suite panics after the report, while it writes
	// results.yaml (run.go, ReportResultsYAML), and exits 2. Its report counts.
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	c := conformance{report: stdout.String()}
	if !strings.Contains(c.report, "OCI Conformance Result: ") {
		t.Fatalf("conformance suite: no report:\n%s\n%s", c.report, stderr.String())
	}
	line := regexp.MustCompile(`(?m)^ *OCI Conformance Test(/\S+): (\w+)$`)
	for _, m := range line.FindAllStringSubmatch(c.report, -1) {
		switch m[2] {
		case "Pass":
			c.passed = append(c.passed, m[1])
		case "Disabled", "Skip":
		default:
			c.failed = append(c.failed, m[1])
		}
	}
	return c
}

func conformanceEnv(l *parts.Larder, img remotestest.Image) []string {
	var manifests, blobs []string
	for _, m := range img.Manifests {
		manifests = append(manifests, m.Descriptor.Digest.String())
	}
	for _, blob := range img.Blobs {
		blobs = append(blobs, blob.Descriptor.Digest.String())
	}
	return []string{
		"OCI_REGISTRY=" + strings.TrimPrefix(l.URL, "http://"), "OCI_TLS=disabled",
		"OCI_REPO1=conformance/repo1", "OCI_REPO2=conformance/repo2",
		"OCI_API_PUSH=false", "OCI_API_BLOBS_DELETE=false", "OCI_API_MANIFESTS_DELETE=false",
		"OCI_API_TAGS_DELETE=false", "OCI_API_BLOBS_MOUNT_ANONYMOUS=false",
		"OCI_API_TAGS_LIST=false", "OCI_API_REFERRER=false",
		"OCI_RO_DATA_TAGS=t1",
		"OCI_RO_DATA_MANIFESTS=" + strings.Join(manifests, " "),
		"OCI_RO_DATA_BLOBS=" + strings.Join(blobs, " "),
	}
}
