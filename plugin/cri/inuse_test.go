package cri_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larder-project/larder/plugin/cri"
)

func config(name string) digest.Digest { return digest.FromString("config of " + name) }
func index(name string) digest.Digest  { return digest.FromString("index of " + name) }

// image is one as containerd lists it.
func image(name string) *runtime.Image {
	repo := "docker.io/library/" + name
	return &runtime.Image{
		Id: config(name).String(), RepoTags: []string{repo + ":1"}, RepoDigests: []string{repo + "@" + index(name).String()},
	}
}

func pod(id, name string, state runtime.PodSandboxState) *runtime.PodSandbox {
	return &runtime.PodSandbox{Id: id, State: state, Metadata: &runtime.PodSandboxMetadata{Namespace: "default", Name: name}}
}

func container(pod, name, image string, state runtime.ContainerState) *runtime.Container {
	return &runtime.Container{
		PodSandboxId: pod, Metadata: &runtime.ContainerMetadata{Name: name}, State: state,
		Image:   &runtime.ImageSpec{Image: image, UserSpecifiedImage: "app:moved"},
		ImageId: image, ImageRef: image,
	}
}

const (
	ready   = runtime.PodSandboxState_SANDBOX_READY
	running = runtime.ContainerState_CONTAINER_RUNNING
	exited  = runtime.ContainerState_CONTAINER_EXITED
)

// busy is a node with one image in each state that matters.
func busy(t *testing.T) *node {
	t.Helper()
	n := newNode(t)
	n.change(func() {
		n.pods = []*runtime.PodSandbox{
			pod("1", "web", ready), pod("2", "job", runtime.PodSandboxState_SANDBOX_NOTREADY), pod("gone", "gone", ready),
		}
		n.sandboxes = map[string]string{"1": `{"image":"docker.io/library/pause:1","pid":7}`, "2": `{"image":"docker.io/library/old-pause:1"}`}
		n.containers = []*runtime.Container{
			container("1", "b", config("app").String(), running),
			container("1", "a", config("app").Encoded(), runtime.ContainerState_CONTAINER_CREATED), // as CRI-O writes it
			container("1", "init", config("init").String(), exited),
			container("2", "done", config("idle").String(), exited), // and so did its pod
			container("2", "odd", config("odd").String(), runtime.ContainerState_CONTAINER_UNKNOWN),
			container("3", "lost", config("lost").String(), running), // its pod and its image are not listed
		}
		for _, name := range []string{"app", "init", "odd", "pause", "old-pause", "idle"} {
			n.images = append(n.images, image(name))
		}
	})
	return n
}

func TestInUse(t *testing.T) {
	t.Parallel()
	n := busy(t)
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	got, err := cri.New(n.address, cri.WithClock(func() time.Time { return at })).InUse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := cri.InUse{Digests: map[digest.Digest]string{}, References: map[string]string{}, Time: at}
	for name, who := range map[string]string{
		"app": "pod default/web, container a", "init": "pod default/web, container init", "odd": "pod default/job, container odd", "pause": "pod default/web, sandbox",
	} {
		want.Digests[config(name)], want.Digests[index(name)] = who, who
		want.References["docker.io/library/"+name+":1"] = who
		want.References["docker.io/library/"+name+"@"+index(name).String()] = who
	}
	want.Digests[config("lost")] = "pod unknown, container lost"
	want.References["docker.io/library/app:moved"] = "pod unknown, container lost"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("in use (-want +got):\n%s", diff)
	}
	digests, err := cri.Users{Client: cri.New(n.address)}.InUse(t.Context())
	if diff := cmp.Diff(want.Digests, digests); diff != "" || err != nil {
		t.Errorf("digests in use: %v (-want +got):\n%s", err, diff)
	}
}

// A runtime that does not tell a sandbox's image keeps all that it pins, as
// long as there is a sandbox. One that tells is asked once a sandbox.
func TestSandboxImage(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	pinned := image("pause")
	pinned.Pinned = true
	n.change(func() {
		n.pods = []*runtime.PodSandbox{pod("1", "web", ready)}
		n.sandboxes = map[string]string{"1": "not JSON"}
		n.images = []*runtime.Image{pinned, image("idle")}
	})
	c := cri.New(n.address)
	for range 2 {
		used, err := c.InUse(t.Context())
		if err != nil || used.Digests[index("pause")] != "pod default/web, sandbox" || len(used.Digests) != 2 {
			t.Errorf("image of a sandbox that is not told: got %v, %v", used.Digests, err)
		}
	}
	n.change(func() {
		if n.asked != 1 {
			t.Errorf("asked %d times for one sandbox, want once", n.asked)
		}
		n.pods[0] = pod("1", "web", runtime.PodSandboxState_SANDBOX_NOTREADY)
	})
	if used, err := c.InUse(t.Context()); err != nil || len(used.Digests) != 0 {
		t.Errorf("after its end: got %v, %v, want nothing in use", used.Digests, err)
	}
}

// Whichever question fails, no half answer comes out, and the last whole one
// stays, whatever its receiver did to it.
func TestLastAnswerStays(t *testing.T) {
	t.Parallel()
	n := busy(t)
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	c := cri.New(n.address, cri.WithClock(func() time.Time { return now }))
	whole, err := c.InUse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, _ := c.InUse(t.Context())
	clear(got.Digests)
	now = now.Add(time.Hour)
	for _, method := range []string{"pods", "sandbox", "containers", "images"} {
		n.change(func() {
			n.fail = map[string]error{method: status.Error(codes.Internal, "out of order")}
			n.pods = append(n.pods, pod("1"+method, "new", ready))
			n.sandboxes["1"+method] = "{}"
		})
		got, err := c.InUse(t.Context())
		if err == nil {
			t.Errorf("%s fails: no error", method)
		}
		if diff := cmp.Diff(whole, got); diff != "" {
			t.Errorf("%s fails: not the last whole answer (-want +got):\n%s", method, diff)
		}
	}
	n.change(func() { n.fail, n.containers = nil, nil })
	if got, err := c.InUse(t.Context()); err != nil || !got.Time.Equal(now) || got.Digests[config("app")] != "" {
		t.Errorf("after the failures: got %v, %v, want a new answer", got, err)
	}
}

func TestNothingHalf(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"pods", "sandbox", "containers", "images"} {
		n := busy(t)
		n.change(func() { n.fail[method] = fmt.Errorf("out of order") })
		if got, err := cri.New(n.address).InUse(t.Context()); err == nil || !got.Time.IsZero() || len(got.Digests)+len(got.References) > 0 {
			t.Errorf("%s fails: got %v, %v, want nothing but an error", method, got, err)
		}
	}
}
