package parts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PauseProgram builds what can run in a pod's containers, with nothing beside it:
// it waits until it is ended.
func PauseProgram(ctx context.Context, dir string) ([]byte, error) {
	program := filepath.Join(dir, "pause")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/larder-project/larder/integration/internal/pause")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build pause: %w: %s", err, out)
	}
	return os.ReadFile(program)
}

// Kubelet does what the kubelet does, by the CRI of a containerd.
type Kubelet struct {
	Runtime runtime.RuntimeServiceClient
	Images  runtime.ImageServiceClient
	dir     string
	conn    *grpc.ClientConn
}

// NewKubelet makes one whose pods log to dir. A pod's cgroup is named after that, and
// taken away by Close.
func NewKubelet(c *Containerd, dir string) (*Kubelet, error) {
	conn, err := grpc.NewClient("unix://"+c.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("kubelet: %w", err)
	}
	return &Kubelet{Runtime: runtime.NewRuntimeServiceClient(conn), Images: runtime.NewImageServiceClient(conn), dir: dir, conn: conn}, nil
}

// Close ends the connection, and takes away the cgroup of the pods, which are to be
// removed: runc leaves the parent of those that it makes.
func (k *Kubelet) Close() error {
	errs := []error{k.conn.Close()}
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		left, _ := filepath.Glob(pattern + k.cgroup())
		for _, cgroup := range left {
			errs = append(errs, os.Remove(cgroup))
		}
	}
	return errors.Join(errs...)
}

func (k *Kubelet) cgroup() string { return filepath.Base(k.dir) }

// Pull pulls an image.
func (k *Kubelet) Pull(ctx context.Context, ref string) error {
	if _, err := k.Images.PullImage(ctx, &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: ref}}); err != nil {
		return fmt.Errorf("pull %s: %w", ref, err)
	}
	return nil
}

// Pod is a pod that runs.
type Pod struct{ Sandbox, Container string }

// RunPod starts a pod of this name with one container app, in the host's network. Its
// image is there. What was started of it when it failed has its name in pod, too.
func (k *Kubelet) RunPod(ctx context.Context, name, ref string) (pod Pod, _ error) {
	host := &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE}
	sandbox := &runtime.PodSandboxConfig{
		Metadata:     &runtime.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name},
		LogDirectory: k.dir,
		Linux: &runtime.LinuxPodSandboxConfig{
			CgroupParent:    "/" + k.cgroup(),
			SecurityContext: &runtime.LinuxSandboxSecurityContext{NamespaceOptions: host},
		},
	}
	made, err := k.Runtime.RunPodSandbox(ctx, &runtime.RunPodSandboxRequest{Config: sandbox})
	if err != nil {
		return pod, fmt.Errorf("run sandbox of %s: %w", name, err)
	}
	pod.Sandbox = made.GetPodSandboxId()
	created, err := k.Runtime.CreateContainer(ctx, &runtime.CreateContainerRequest{
		PodSandboxId: pod.Sandbox, SandboxConfig: sandbox,
		Config: &runtime.ContainerConfig{
			Metadata: &runtime.ContainerMetadata{Name: "app"}, Image: &runtime.ImageSpec{Image: ref}, LogPath: name + ".log",
			Linux: &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{NamespaceOptions: host}},
		},
	})
	if err != nil {
		return pod, fmt.Errorf("create container of %s: %w", name, err)
	}
	pod.Container = created.GetContainerId()
	if _, err := k.Runtime.StartContainer(ctx, &runtime.StartContainerRequest{ContainerId: pod.Container}); err != nil {
		return pod, fmt.Errorf("start container of %s: %w", name, err)
	}
	return pod, nil
}

// IsRunning reports whether a pod's container runs.
func (k *Kubelet) IsRunning(ctx context.Context, pod Pod) (bool, error) {
	status, err := k.Runtime.ContainerStatus(ctx, &runtime.ContainerStatusRequest{ContainerId: pod.Container})
	return status.GetStatus().GetState() == runtime.ContainerState_CONTAINER_RUNNING, err
}

// RemovePod ends a pod.
func (k *Kubelet) RemovePod(ctx context.Context, pod Pod) error {
	_, stopErr := k.Runtime.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: pod.Sandbox})
	_, err := k.Runtime.RemovePodSandbox(ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: pod.Sandbox})
	return errors.Join(stopErr, err)
}
