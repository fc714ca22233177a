package hosts

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestInspect(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	if found, err := Inspect(filepath.Join(o.CertsDir, "none")); err != nil || len(found) != 0 {
		t.Errorf("no folder: got %v, error %v", found, err)
	}
	if _, err := Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if found, err := Inspect(o.CertsDir); err != nil || len(found) != 0 {
		t.Errorf("only larder's: got %v, error %v", found, err)
	}
	put(t, o.CertsDir, "_backup/docker.io/hosts.toml", "", 0o644)
	put(t, o.CertsDir, "registry.example_5000_/hosts.toml", "# theirs\n", 0o644)
	found, err := Inspect(o.CertsDir)
	if err != nil || len(found) != 2 {
		t.Fatalf("got %v, error %v; want two findings", found, err)
	}
	if !strings.Contains(found[0].Problem, "Spegel") {
		t.Errorf("got %+v, want one about Spegel", found[0])
	}
	if !strings.Contains(found[1].Fix, "--registry registry.example:5000") {
		t.Errorf("got %+v, want one about registry.example:5000", found[1])
	}
	found, err = Inspect("/var/lib/rancher/k3s/agent/etc/containerd/certs.d")
	if err != nil || len(found) != 1 || !strings.Contains(found[0].Fix, "registries.yaml") {
		t.Errorf("k3s: got %v, error %v; want one that names registries.yaml", found, err)
	}
}
