package doctor

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew")

func contains(text, part string) bool { return strings.Contains(text, part) }

// sample has a result of each status.
func sample() Report {
	return NewReport([]Result{
		Fine("config", "%s", "/etc/larder/config.toml"),
		Bad(Warning, "daemon", "none on /run/larder/admin.sock", "start it: larder serve"),
		Bad(Problem, "containerd config", "/etc/containerd/config.toml: config_path is not set\nat all", "set:\n  config_path = \"/etc/containerd/certs.d\"\nand restart containerd\n"),
		Bad(Unknown, "kubelet", "no configuration found", ""),
		Fine("store space", "%d GiB free", 61),
	})
}

func TestPrint(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	if err := sample().Print(&text); err != nil {
		t.Fatal(err)
	}
	encoded, err := json.MarshalIndent(sample(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{"report.txt": text.Bytes(), "report.json": append(encoded, '\n')} {
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

// Only a problem makes a node unhealthy.
func TestHealthy(t *testing.T) {
	t.Parallel()
	if r := sample(); r.Healthy {
		t.Error("a problem, and healthy")
	}
	if r := NewReport([]Result{{Status: Warning}, {Status: Unknown}, {Status: OK}}); !r.Healthy || r.Warnings != 1 || r.Unknown != 1 {
		t.Errorf("no problem: got %+v", r)
	}
}
