package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larder-project/larder/integration/internal/disks"
	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestProxyHangs says how long a node waits whose content is in larder, while larder
// is stopped, its disk hangs, or upstream does. It is for the table in docs/proxy.md;
// what fails it is not time: the pods that run must go on, containerd too, and behind
// it all works again.
//
//nolint:paralleltest // it measures
func TestProxyHangs(t *testing.T) {
	if os.Getenv("LARDER_TEST_PROXY_HANGS") == "" {
		t.Skip("NOT TESTED: two minutes of waiting; set LARDER_TEST_PROXY_HANGS=1")
	}
	drive := disks.NewDrive(t, 512<<20)
	disk := disks.New(t, disks.Options{Kind: disks.Ext4, Backing: drive.File()})
	o := podOptions(parts.ContainerdOptions{})
	h := &hanging{proxied: newProxyingOn(t, o, filepath.Join(disk.Path, "store"), noCompanions, "")}
	o.CertsDir, o.Proxy = h.certs, h.socket()
	h.containerd = h.containerdWith(o)
	h.kubelet = h.proxied.kubelet(350)
	for _, ref := range []string{sandboxRef, podRef} {
		if err := h.kubelet.Pull(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	h.archive = filepath.Join(h.dir, "app.tar")
	ctr(t, h.containerd, "-n", "k8s.io", "images", "export", h.archive, podRef)
	running, pid := h.runPod(h.kubelet, "running", podRef), h.containerd.PID()
	stall := func(fault disks.Fault) error {
		drive.Set(fault)
		return nil
	}
	for _, fault := range []struct {
		name       string
		lasts      time.Duration
		begin, end func() error
	}{
		{"nothing hangs", time.Second, func() error { return nil }, func() error { return nil }},
		{"larder is stopped for 10 s", 10 * time.Second, func() error { return h.l.Signal(syscall.SIGSTOP) }, func() error { return h.l.Signal(syscall.SIGCONT) }},
		{"larder's disk hangs for 45 s", 45 * time.Second, func() error { return stall(disks.Fault{Stall: true}) }, func() error { return stall(disks.Fault{}) }},
		{"upstream hangs for 15 s", 15 * time.Second, func() error { return h.registry.Signal(syscall.SIGSTOP) }, func() error { return h.registry.Signal(syscall.SIGCONT) }},
	} {
		t.Log(fault.name)
		h.measure(fault.name, fault.lasts, fault.begin, fault.end)
		if ok, err := h.kubelet.IsRunning(t.Context(), running); !ok || err != nil {
			t.Errorf("%s: the pod runs on: %t, %v", fault.name, ok, err)
		}
		if h.containerd.PID() != pid {
			t.Errorf("%s: containerd did not run on", fault.name)
		}
		eventually(t, "after "+fault.name+", all can be pulled", func() bool {
			return errors.Join(h.kubelet.Pull(t.Context(), h.warm), h.kubelet.Pull(t.Context(), h.cold)) == nil
		})
		h.runPod(h.kubelet, fmt.Sprintf("after-%d", h.round), podRef)
		h.checkContent()
	}
	for _, row := range h.rows {
		t.Log(row)
	}
}

// podRef is the image of the pods of proxied.kubelet.
const podRef = "docker.io/library/app:1"

// hanging is a node with a fault.
type hanging struct {
	*proxied
	kubelet    *parts.Kubelet
	round      int
	warm, cold string // images of the round: stored in larder, and not
	archive    string // of another image

	mu   sync.Mutex // guards what follows
	rows []string   // a table
}

// row notes what something took. It began when the fault did.
func (h *hanging) row(fault, what string, took time.Duration, result string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rows = append(h.rows, fmt.Sprintf("| %s | %s | %s | %s |", fault, what, took.Round(10*time.Millisecond), result))
}

// measure has a fault for some time, and times what containerd is asked meanwhile.
func (h *hanging) measure(fault string, lasts time.Duration, begin, end func() error) {
	h.t.Helper()
	h.round++
	h.warm, h.cold = fmt.Sprintf("docker.io/library/warm:%d", h.round), fmt.Sprintf("docker.io/library/cold:%d", h.round)
	for i, name := range []string{"warm", "cold"} {
		h.push("library/"+name, fmt.Sprint(h.round), remotestest.Build(remotestest.ImageSpec{Seed: uint64(360 + 2*h.round + i), Layers: []int64{8 << 20}}))
	}
	run(h.t, h.l, "pull", h.warm)
	if err := begin(); err != nil {
		h.t.Fatal(err)
	}
	over := make(chan struct{})
	time.AfterFunc(lasts, func() {
		defer close(over)
		if err := end(); err != nil {
			h.t.Error(err)
		}
	})
	defer func() { <-over }() // or nothing could be taken away

	ctx, cancel := context.WithTimeout(h.t.Context(), 2*time.Minute)
	defer cancel()
	var once, again sync.WaitGroup
	for what, do := range map[string]func() error{
		"pull of what larder has": func() error { return h.kubelet.Pull(ctx, h.warm) },
		"pull of what it has not": func() error { return h.kubelet.Pull(ctx, h.cold) },
		"import of an image": func() error {
			_, err := h.containerd.Ctr(ctx, "images", "import", h.archive)
			return err
		},
		"start of a pod": func() error { return h.startPod(ctx) },
		"a second pod, 2 s behind": func() error {
			<-time.After(2 * time.Second)
			return h.startPod(ctx)
		},
	} {
		once.Go(func() {
			began := time.Now() // with the fault
			err := do()
			result := "done"
			if err != nil {
				result = "error: " + err.Error()
			}
			h.row(fault, what, time.Since(began), result)
		})
	}
	done := make(chan struct{})
	for what, do := range map[string]func() error{
		"write into containerd's database": func() error {
			_, err := h.containerd.Ctr(ctx, "-n", "k8s.io", "images", "label", podRef, fmt.Sprintf("round=%d", time.Now().UnixNano()))
			return err
		},
		"list of images": func() error {
			_, err := h.kubelet.Images.ListImages(ctx, &cri.ListImagesRequest{})
			return err
		},
		"list of containers": func() error {
			_, err := h.kubelet.Runtime.ListContainers(ctx, &cri.ListContainersRequest{})
			return err
		},
	} {
		again.Go(func() { h.repeat(fault, what, done, do) })
	}
	once.Wait()
	close(done)
	again.Wait()
}

// repeat times something again and again, until all else is done.
func (h *hanging) repeat(fault, what string, done <-chan struct{}, do func() error) {
	var longest time.Duration
	n, failed := 0, 0
	pause := time.NewTicker(100 * time.Millisecond)
	defer pause.Stop()
	for {
		began := time.Now()
		n++
		if err := do(); err != nil {
			failed++
		}
		longest = max(longest, time.Since(began))
		select {
		case <-done:
			h.row(fault, what+", the longest", longest, fmt.Sprintf("%d of %d failed", failed, n))
			return
		case <-pause.C:
		}
	}
}

// startPod runs a pod until the test ends.
func (h *hanging) startPod(ctx context.Context) error {
	pod, err := h.kubelet.RunPod(ctx, fmt.Sprintf("pod-%d", time.Now().UnixNano()), podRef)
	if pod.Sandbox != "" {
		h.cleanup(func() error { return h.kubelet.RemovePod(context.WithoutCancel(h.t.Context()), pod) })
	}
	return err
}
