package integration

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
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
	t.Logf("cold, warm and upstream off:\n%s", cold)
	if warm != cold || off != cold {
		t.Errorf("the three runs differ: cold\n%s\nwarm\n%s\nupstream off\n%s", cold, warm, off)
	}
}

// conform runs the suite against larder's mirror and returns its table of API
// results, of which none may be a failure.
func conform(t *testing.T, b *bench, l *parts.Larder, img remotestest.Image) string {
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
	out := stdout.String()
	if !strings.Contains(out, "OCI Conformance Result: Pass") || regexp.MustCompile(`: +(FAIL|Error)\b`).MatchString(out) {
		t.Fatalf("conformance suite:\n%s\n%s", out, stderr.String())
	}
	_, table, found := strings.Cut(out, "API conformance:\n")
	table, _, _ = strings.Cut(table, "\n\n")
	passed := regexp.MustCompile(`(?m)^.*: +(Pass|Unknown)$`).FindAllString(table, -1)
	if !found || len(passed) < 7 {
		t.Fatalf("conformance suite: fewer than 7 API results:\n%s", out)
	}
	return strings.Join(passed, "\n")
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
