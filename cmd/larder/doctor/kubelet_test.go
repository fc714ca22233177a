package doctor

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"

func TestReadKubelet(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text    string
		dropIns map[string]string
		want    Kubelet
	}{
		"defaults": {text: head, want: Kubelet{High: 85, Low: 80, EvictionHard: map[string]string{"imagefs.available": "15%", "nodefs.available": "10%"}}},
		"YAML": {
			text: head + "imageGCHighThresholdPercent: 70\nimageGCLowThresholdPercent: 0\nevictionHard:\n  nodefs.available: 5%\n",
			want: Kubelet{High: 70, Low: 0, EvictionHard: map[string]string{"nodefs.available": "5%"}},
		},
		"JSON": {
			text: `{"kind": "KubeletConfiguration", "imageGCHighThresholdPercent": 90, "evictionHard": {"imagefs.available": "10Gi"}, "mergeDefaultEvictionSettings": true}`,
			want: Kubelet{High: 90, Low: 80, EvictionHard: map[string]string{"imagefs.available": "10Gi", "nodefs.available": "10%"}},
		},
		"drop-ins, in order": {
			text: head + "imageGCHighThresholdPercent: 70\nevictionHard: {nodefs.available: 5%}\n",
			dropIns: map[string]string{
				"20-b.conf":   head + "imageGCHighThresholdPercent: 60\n",
				"10-a.conf":   head + "imageGCHighThresholdPercent: 50\nevictionHard: {imagefs.available: 7%}\n",
				"30-c.yaml":   head + "imageGCHighThresholdPercent: 40\n", // not a drop-in's name
				"40/sub.conf": head + "imageGCLowThresholdPercent: 30\n",
			},
			want: Kubelet{High: 60, Low: 30, EvictionHard: map[string]string{"nodefs.available": "5%", "imagefs.available": "7%"}},
		},
	} {
		dir := t.TempDir()
		file := write(t, filepath.Join(dir, "config"), c.text)
		for name, text := range c.dropIns {
			write(t, filepath.Join(file+".d", name), text)
		}
		for _, dropIns := range []string{"", file + ".d"} {
			if dropIns != "" && c.dropIns == nil {
				continue
			}
			got, err := ReadKubelet(file, dropIns)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			got.Files = nil
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	}
}

func TestBadKubelet(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"kind: Pod\n": "want KubeletConfiguration",
		"":            "want KubeletConfiguration",
		"kind: [":     "yaml",
		head + "imageGCHighThresholdPercent: lots": "lots",
		strings.Repeat("#", maxKubeletFile+1):      "not a configuration",
	} {
		file := write(t, filepath.Join(t.TempDir(), "config"), text)
		if got, err := ReadKubelet(file, ""); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %+v, %v, want an error that names the file and says %q", text, got, err, want)
		}
	}
	if _, err := ReadKubelet(write(t, filepath.Join(t.TempDir(), "config"), head), t.TempDir()+"/absent"); err == nil {
		t.Error("a folder of drop-ins that was named and is not there: no error")
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	disk, err := Look(dir)
	if err != nil {
		t.Fatal(err)
	}
	disk.Total, disk.Free = 1000<<30, 900<<30
	defaults := Kubelet{High: 85, Low: 80, EvictionHard: map[string]string{"imagefs.available": "15%", "nodefs.available": "10%"}}
	never := Kubelet{High: 100, EvictionHard: map[string]string{"imagefs.available": "0%"}}
	odd := Kubelet{High: 100, EvictionHard: map[string]string{"imagefs.available": "lots"}}
	share := func(size, free int64) Budget { return Budget{MaxSize: size << 30, MinFree: free << 30} }
	here, elsewhere := Places{dir, dir}, Places{"/proc", "/proc"}
	for name, c := range map[string]struct {
		kubelet Kubelet
		places  Places
		budget  Budget
		want    []Status
		found   string
	}{
		"larder's defaults":                  {defaults, here, share(300, 200), []Status{OK}, "600 GiB"},
		"the floor under image GC":           {defaults, here, share(900, 155), []Status{Warning}, "imageGCHighThresholdPercent 85"},
		"the floor under all":                {defaults, here, share(900, 50), []Status{Warning, Warning, Warning}, "deletes images"},
		"the floor under all, size is small": {defaults, here, share(100, 0), []Status{OK}, "800 GiB"},
		"a kubelet that deletes nothing":     {never, here, share(1000, 0), []Status{OK}, "0 B"},
		"another disk":                       {defaults, elsewhere, share(1000, 0), []Status{OK}, "disk of its own"},
		"images elsewhere":                   {defaults, Places{dir, "/proc"}, share(1000, 0), []Status{Warning}, "nodefs.available<10%"},
		"folders that are not there":         {defaults, Places{dir + "/a", dir + "/b"}, share(1000, 0), []Status{Warning, Warning, Warning}, "deletes images"},
		"a threshold that is none":           {odd, here, share(300, 200), []Status{Unknown}, "lots"},
	} {
		got := c.kubelet.Compare(disk, c.places, c.budget, 0)
		var statuses []Status
		for _, r := range got {
			statuses = append(statuses, r.Status)
		}
		if diff := cmp.Diff(c.want, statuses); diff != "" || !contains(got[0].Found, c.found) {
			t.Errorf("%s: got %+v, want %v that says %q", name, got, c.want, c.found)
		}
	}
	if got := defaults.Compare(disk, here, share(900, 155), 0); !contains(got[0].Remedy, "more than 16%") {
		t.Errorf("remedy: got %q, want a min_free over 16%%", got[0].Remedy)
	}
}
