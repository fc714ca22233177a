package integration

import (
	"context"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// sandboxRef is the image of the sandboxes of newPodNode.
const sandboxRef = "docker.io/library/pause:1"

// podOptions are of a containerd that runs pods: see proxied.kubelet.
func podOptions(o parts.ContainerdOptions) parts.ContainerdOptions {
	o.SandboxImage = sandboxRef
	return o
}

// kubelet makes the images of pods known upstream, library/app:1 being one, and is
// who runs them.
func (p *proxied) kubelet(seed uint64) *parts.Kubelet {
	p.t.Helper()
	p.t.Cleanup(parts.TidyShims())
	program, err := parts.PauseProgram(p.t.Context(), p.dir)
	if err != nil {
		p.t.Fatal(err)
	}
	for i, name := range []string{"pause", "app"} {
		p.push("library/"+name, "1", remotestest.Build(remotestest.ImageSpec{
			Seed: seed + uint64(i), Files: []remotestest.File{{Path: "pause", Mode: 0o755, Data: program}}, Cmd: []string{"/pause"},
		}))
	}
	k, err := parts.NewKubelet(p.containerd, p.dir)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cleanup(k.Close)
	return k
}

// runPod runs a pod until the test ends.
func (p *proxied) runPod(k *parts.Kubelet, name, ref string) parts.Pod {
	p.t.Helper()
	pod, err := k.RunPod(p.t.Context(), name, ref)
	p.cleanup(func() error { return k.RemovePod(context.WithoutCancel(p.t.Context()), pod) })
	if err != nil {
		p.t.Fatal(err)
	}
	return pod
}

// TestProxyPod: a pod runs from images that larder holds, by the CRI, on both pull
// paths: with larder as content store and differ, and as differ alone. larder may be
// killed then; the pod runs on, and when larder is back, the next one starts. Beside
// containerd's own content store one starts without larder, too.
func TestProxyPod(t *testing.T) {
	t.Parallel()
	for name, local := range map[string]bool{"transfer": false, "local": true} {
		for service, start := range map[string]func(*testing.T, parts.ContainerdOptions) *proxied{
			"content and diff": func(t *testing.T, o parts.ContainerdOptions) *proxied {
				t.Helper()
				return newProxied(t, o, "log.level = \"debug\"\n"+noCompanions, "")
			},
			"diff": newDiffAlone,
		} {
			t.Run(service+", "+name, func(t *testing.T) {
				t.Parallel()
				p := start(t, podOptions(parts.ContainerdOptions{LocalPull: local}))
				k := p.kubelet(320)
				ref := "docker.io/library/app:1"
				// Cold, and then from what larder holds, with upstream gone.
				if err := k.Pull(t.Context(), sandboxRef); err != nil {
					t.Fatal(err)
				}
				if err := k.Pull(t.Context(), ref); err != nil {
					t.Fatal(err)
				}
				if err := p.containerd.Forget(t.Context(), "k8s.io"); err != nil {
					t.Fatal(err)
				}
				if err := p.upstream.Cut(); err != nil {
					t.Fatal(err)
				}
				if err := k.Pull(t.Context(), ref); err != nil {
					t.Fatal(err)
				}
				first := p.runPod(k, "first", ref) // containerd pulls the sandbox's image
				if err := p.l.Kill(); err != nil {
					t.Fatal(err)
				}
				if running, err := k.IsRunning(t.Context(), first); !running || err != nil {
					t.Errorf("while larder is down the pod runs: %t, %v", running, err)
				}
				without, err := k.RunPod(t.Context(), "without", ref)
				if without.Sandbox != "" {
					p.cleanup(func() error { return k.RemovePod(context.WithoutCancel(t.Context()), without) })
				}
				switch service {
				case "diff":
					if err != nil {
						t.Errorf("a new pod while larder is down: %v", err)
					}
				default:
					if err == nil || !strings.Contains(err.Error(), p.socket()) {
						t.Errorf("a new pod while larder is down: %v, want an error that names its socket: the documentation is wrong", err)
					}
				}
				if err := p.l.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				eventually(t, "larder is back", func() bool {
					_, err := p.containerd.Ctr(t.Context(), "-n", "k8s.io", "images", "check")
					return err == nil
				})
				second := p.runPod(k, "second", ref)
				for name, pod := range map[string]parts.Pod{"first": first, "second": second} {
					if running, err := k.IsRunning(t.Context(), pod); !running || err != nil {
						t.Errorf("pod %s runs: %t, %v", name, running, err)
					}
				}
			})
		}
	}
}
