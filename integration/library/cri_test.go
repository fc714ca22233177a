package library

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/plugin/cri"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestCRIInUse runs a pod in containerd and asks which images are in use, while
// it runs and after.
func TestCRIInUse(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("containerd needs root")
	}
	bin, err := parts.FindBin()
	if err != nil {
		t.Fatal(err)
	}
	if err := bin.Need("containerd", "containerd-shim-runc-v2"); err != nil {
		t.Fatal(err)
	}
	dir, err := parts.TempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(parts.TidyShims())
	registry := remotestest.New(t)
	images := map[string]remotestest.Image{}
	pause, err := parts.PauseProgram(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	program := remotestest.File{Path: "pause", Mode: 0o755, Data: pause}
	for i, name := range []string{"pause", "app", "idle"} {
		images[name] = remotestest.Build(remotestest.ImageSpec{
			Seed: uint64(40 + i), Files: []remotestest.File{program}, Cmd: []string{"/pause"},
		})
		registry.PutImage("library/"+name, "1", images[name])
	}
	ref := func(name string) string { return registry.Host() + "/library/" + name + ":1" }
	c, err := parts.StartContainerd(t.Context(), bin, dir, parts.ContainerdOptions{
		CertsDir: filepath.Join(dir, "certs.d"), SandboxImage: ref("pause"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(c.Log())
		}
	})
	n, err := parts.NewKubelet(c, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(n.Pull(t.Context(), ref("idle")), n.Pull(t.Context(), ref("app"))); err != nil {
		t.Fatal(err)
	}
	client := cri.New(c.Address())
	if name, version, err := client.Version(t.Context()); name != "containerd" || version == "" || err != nil {
		t.Errorf("version: got %q %q, %v", name, version, err)
	}

	pod, err := n.RunPod(t.Context(), "web", ref("app"))
	t.Cleanup(func() {
		if err := n.RemovePod(context.WithoutCancel(t.Context()), pod); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	used := inUse(t, client)
	for name, who := range map[string]string{"app": "pod default/web, container app", "pause": "pod default/web, sandbox"} {
		manifest, config := images[name].Root.Digest, configOf(t, images[name])
		if used.Digests[manifest] != who || used.Digests[config.Descriptor.Digest] != who || used.References[ref(name)] != who {
			t.Errorf("%s runs: manifest used by %q, config by %q, %s by %q, want %q; all: %v", name,
				used.Digests[manifest], used.Digests[config.Descriptor.Digest], ref(name), used.References[ref(name)], who, used)
		}
	}
	if who, ok := used.Digests[images["idle"].Root.Digest]; ok {
		t.Errorf("an image that no pod has is used by %q", who)
	}

	if _, err := n.Runtime.StopContainer(t.Context(), &runtime.StopContainerRequest{ContainerId: pod.Container}); err != nil {
		t.Fatal(err)
	}
	used = inUse(t, client)
	if used.Digests[images["app"].Root.Digest] == "" {
		t.Error("the pod runs on and may start its container again, and the image is not in use")
	}
	if used.Digests[images["pause"].Root.Digest] == "" {
		t.Error("the sandbox runs on, and its image is not in use")
	}
	if _, err := n.Runtime.StopPodSandbox(t.Context(), &runtime.StopPodSandboxRequest{PodSandboxId: pod.Sandbox}); err != nil {
		t.Fatal(err)
	}
	// The runtime takes a moment to say so.
	begun := time.Now()
	for used = inUse(t, client); len(used.Digests)+len(used.References) > 0; used = inUse(t, client) {
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("after the pod stopped there are in use: %v", used)
		}
	}
}

func inUse(t *testing.T, c *cri.Client) cri.InUse {
	t.Helper()
	used, err := c.InUse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return used
}

func configOf(t *testing.T, img remotestest.Image) remotestest.Blob {
	t.Helper()
	for _, b := range img.Blobs {
		if b.Descriptor.MediaType == "application/vnd.oci.image.config.v1+json" {
			return b
		}
	}
	t.Fatal("an image without a config")
	return remotestest.Blob{}
}
