package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
)

// finding is a line of larder doctor --json.
type finding struct{ Check, Status, Found, Remedy string }

// doctor runs larder doctor on what belongs to the test, and returns what it
// found and whether it found no problem.
func doctor(t *testing.T, l *parts.Larder, c *parts.Containerd, certs, kubelet string) (found []finding, healthy bool) {
	t.Helper()
	out, err := l.Run(t.Context(), "doctor", "--json", "--certs-d", certs, "--containerd-config", c.Config(), "--kubelet-config", kubelet)
	var report struct {
		Healthy bool
		Checks  []finding
	}
	if jsonErr := json.Unmarshal([]byte(out), &report); jsonErr != nil {
		t.Fatalf("doctor: %v: %v\n%s", err, jsonErr, out)
	}
	if report.Healthy != (err == nil) {
		t.Errorf("doctor ended with %v, and says healthy %t", err, report.Healthy)
	}
	return report.Checks, report.Healthy
}

// A node that larder setup containerd has prepared is found healthy, and what
// becomes of it then is found, too; whichever containerd it has.
func TestDoctorOnNode(t *testing.T) {
	t.Parallel()
	for name, release := range releases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doctorOnNode(t, release)
		})
	}
}

func doctorOnNode(t *testing.T, release string) {
	t.Helper()
	b := newBench(t, "larder", "containerd", "containerd-"+oldRelease)
	c := b.containerdWith(parts.ContainerdOptions{Release: release, CertsDir: filepath.Join(b.dir, "certs.d")})
	l := b.larder("[space]\ncri = \"" + c.Address() + "\"\n")
	certs := b.certs(l)
	kubelet := filepath.Join(b.dir, "kubelet.yaml")
	if err := os.WriteFile(kubelet, []byte("kind: KubeletConfiguration\nimageGCHighThresholdPercent: 85\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	found, healthy := doctor(t, l, c, certs, kubelet)
	for _, f := range found {
		// The disk is whoever's machine this is.
		if f.Status != "ok" && !strings.HasPrefix(f.Check, "store disk") && !strings.HasPrefix(f.Check, "store space") && f.Check != "store inodes" {
			t.Errorf("a node that was set up: %+v", f)
		}
	}
	told := func(check, status, text string) {
		t.Helper()
		for _, f := range found {
			if f.Check == check && f.Status == status && strings.Contains(f.Found, text) {
				return
			}
		}
		t.Errorf("%s is not %s with %q: %+v", check, status, text, found)
	}
	told("container runtime", "ok", "containerd "+release)
	told("images in use", "ok", "0 digests")
	told("hosts.toml", "ok", l.URL)
	if !healthy {
		t.Error("a node that was set up is not healthy")
	}

	if err := os.WriteFile(kubelet, []byte("kind: KubeletConfiguration\nimageGCHighThresholdPercent: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, _ = doctor(t, l, c, certs, kubelet)
	told("kubelet", "warning", "imageGCHighThresholdPercent 1)")

	if err := os.Chmod(l.Root(), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Run(t.Context(), "setup", "containerd", "--undo", "--certs-d", certs); err != nil {
		t.Fatal(err)
	}
	found, healthy = doctor(t, l, c, certs, kubelet)
	told("store folder", "problem", "0777")
	told("daemon", "warning", "none on")
	told("container runtime", "problem", c.Address())
	told("hosts.toml", "problem", "does not ask larder")
	if healthy {
		t.Error("a node with problems is healthy")
	}
}
