package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxKubeletFile bounds a file of the kubelet's configuration in bytes.
const maxKubeletFile = 1 << 20

// KubeletFiles returns where the kubelet's configuration may be: as kubeadm and
// as EKS have it.
func KubeletFiles() []string {
	return []string{"/var/lib/kubelet/config.yaml", "/etc/kubernetes/kubelet/config.json"}
}

// kubeletConfig is what larder reads of a KubeletConfiguration. Nil is not said.
type kubeletConfig struct {
	Kind         string            `yaml:"kind"`
	High         *int              `yaml:"imageGCHighThresholdPercent"`
	Low          *int              `yaml:"imageGCLowThresholdPercent"`
	EvictionHard map[string]string `yaml:"evictionHard"`
	MergeDefault *bool             `yaml:"mergeDefaultEvictionSettings"`
}

// Kubelet is how a kubelet treats a disk that fills.
type Kubelet struct {
	// Files were read, in this order.
	Files []string
	// High and Low are percent of a disk in use: above High the kubelet deletes
	// images until Low is reached. High 100: never.
	High, Low int
	// EvictionHard are the free shares or sizes by signal, as in
	// imagefs.available, below which it ends pods.
	EvictionHard map[string]string
}

// ReadKubelet reads the kubelet's configuration as the kubelet does: the file,
// and over it the drop-ins in folder dir, those named *.conf in the order of
// their paths. Without a file, one of KubeletFiles is read; without a folder,
// the file's name with .d, if that is there. The error wraps fs.ErrNotExist if
// there is no file.
func ReadKubelet(file, dir string) (Kubelet, error) {
	if file == "" {
		for _, name := range KubeletFiles() {
			if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
				file = name
				break
			}
		}
	}
	if file == "" {
		return Kubelet{}, fmt.Errorf("%s: %w", strings.Join(KubeletFiles(), ", "), fs.ErrNotExist)
	}
	files := []string{file}
	dropIns, err := dropInsOf(cmp.Or(dir, file+".d"))
	if err != nil && (dir != "" || !errors.Is(err, fs.ErrNotExist)) {
		return Kubelet{}, err
	}
	files = append(files, dropIns...)
	var all kubeletConfig
	for _, name := range files {
		if err := all.add(name); err != nil {
			return Kubelet{}, err
		}
	}
	return all.complete(files), nil
}

func dropInsOf(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) == ".conf" {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

// add puts a file over what was read before. Of tables each key counts by
// itself.
func (c *kubeletConfig) add(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxKubeletFile {
		return fmt.Errorf("%s: not a configuration of the kubelet", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var one kubeletConfig
	if err := yaml.Unmarshal(text, &one); err != nil { // JSON is YAML
		return fmt.Errorf("%s: %w", path, err)
	}
	if one.Kind != "KubeletConfiguration" {
		return fmt.Errorf("%s: kind is %q, want KubeletConfiguration", path, one.Kind)
	}
	c.High, c.Low = cmp.Or(one.High, c.High), cmp.Or(one.Low, c.Low)
	c.MergeDefault = cmp.Or(one.MergeDefault, c.MergeDefault)
	if one.EvictionHard != nil && c.EvictionHard == nil {
		c.EvictionHard = map[string]string{}
	}
	maps.Copy(c.EvictionHard, one.EvictionHard)
	return nil
}

// complete fills in the kubelet's defaults. Those of eviction hold together:
// who says one takes all away, unless mergeDefaultEvictionSettings is set.
func (c *kubeletConfig) complete(files []string) Kubelet {
	k := Kubelet{Files: files, High: 85, Low: 80, EvictionHard: map[string]string{}}
	if c.High != nil {
		k.High = *c.High
	}
	if c.Low != nil {
		k.Low = *c.Low
	}
	if c.EvictionHard == nil || c.MergeDefault != nil && *c.MergeDefault {
		k.EvictionHard["imagefs.available"], k.EvictionHard["nodefs.available"] = "15%", "10%"
	}
	maps.Copy(k.EvictionHard, c.EvictionHard)
	return k
}

// Thresholds are those of a disk of total bytes, on which the kubelet's own
// folder (nodefs) or the images (imagefs) are.
func (k Kubelet) Thresholds(total int64, nodefs, imagefs bool) ([]Threshold, error) {
	var all []Threshold
	if imagefs && k.High < 100 {
		// The kubelet rounds what is free down to whole percents.
		all = append(all, Threshold{
			Free:    int64(float64(101-k.High) / 100 * float64(total)),
			Setting: fmt.Sprintf("imageGCHighThresholdPercent %d", k.High), Effect: "deletes images",
		})
	}
	for signal, on := range map[string]bool{"imagefs.available": imagefs, "nodefs.available": nodefs} {
		text, ok := k.EvictionHard[signal]
		if !ok || !on {
			continue
		}
		free, err := ParseShare(text, total)
		if err != nil {
			return nil, fmt.Errorf("evictionHard %s: %w", signal, err)
		}
		all = append(all, Threshold{Free: free, Setting: fmt.Sprintf("evictionHard %s<%s", signal, text), Effect: "evicts pods"})
	}
	slices.SortFunc(all, func(a, b Threshold) int {
		return cmp.Or(cmp.Compare(b.Free, a.Free), cmp.Compare(a.Setting, b.Setting))
	})
	return all, nil
}

// Places are the folders whose disks the kubelet watches.
type Places struct{ Kubelet, Images string }

// DefaultPlaces returns the kubelet's and containerd's own folders.
func DefaultPlaces() Places {
	return Places{Kubelet: "/var/lib/kubelet", Images: "/var/lib/containerd"}
}

// Compare says whether larder's budget lets the store's disk fill to where the
// kubelet deletes images or evicts pods. stored is what larder has there, in
// bytes.
func (k Kubelet) Compare(store Disk, places Places, b Budget, stored int64) []Result {
	const check = "kubelet"
	nodefs, imagefs := shares(store, places.Kubelet), shares(store, places.Images)
	if !nodefs && !imagefs {
		return []Result{Fine(check, "the store has a disk of its own, which the kubelet does not watch")}
	}
	thresholds, err := k.Thresholds(store.Total, nodefs, imagefs)
	if err != nil {
		return []Result{Bad(Unknown, check, fmt.Sprintf("%s: %v", strings.Join(k.Files, ", "), err), "correct the kubelet's configuration")}
	}
	least := b.Least(store.Free, stored)
	reached := Reached(least, thresholds)
	if len(reached) == 0 {
		return []Result{Fine(check, "larder stops at %s of %s free, before the kubelet deletes images or evicts pods", bytesText(least), bytesText(store.Total))}
	}
	var all []Result
	highest := reached[0].Free
	for _, t := range reached {
		all = append(all, Bad(Warning, check, fmt.Sprintf("larder may fill the disk until %s of %s are free; below %s the kubelet %s (%s)",
			bytesText(least), bytesText(store.Total), bytesText(t.Free), t.Effect, t.Setting), ""))
	}
	all[len(all)-1].Remedy = fmt.Sprintf("set [space] min_free to more than %d%%, or give root a disk of its own", (highest*100+store.Total-1)/store.Total)
	return all
}

// shares reports whether a folder is on the store's disk. One that is not there
// is taken to be: it is made on the root disk, as the store is.
func shares(store Disk, folder string) bool {
	d, err := look(folder)
	return err != nil || d.Device == store.Device
}
