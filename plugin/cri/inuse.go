package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// InUse is what a runtime's containers use. Each thing in use has a text beside
// it that names one of its users, as in "pod default/web, container nginx".
type InUse struct {
	// Digests are those of images' manifests or indexes, by which the runtime
	// knows them, and of images' configs. That a digest is among them says
	// nothing of the kind of blob it is.
	Digests map[digest.Digest]string
	// References are names by tag or digest, with the registry host spelled out.
	References map[string]string
	// Time is when the runtime was asked; zero if it never answered.
	Time time.Time
}

// InUse asks the runtime. If that fails, it returns the last whole answer
// beside the error: what was in use then is best taken to be so still.
//
// The error wraps errdefs.ErrUnavailable when the runtime cannot be reached or
// does not answer in time, errdefs.ErrPermissionDenied when larder may not ask
// it, and ctx's when that ended.
func (c *Client) InUse(ctx context.Context) (InUse, error) {
	began := c.now()
	var l listing
	err := c.ask(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		l, err = c.list(ctx, conn)
		return err
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		return c.last.clone(), err
	}
	// Of two questions at once, the later one's answer counts.
	if !began.Before(c.last.Time) {
		c.last = l.inUse()
		c.last.Time = began
	}
	return c.last.clone(), nil
}

// clone lets the receiver change what it got.
func (u InUse) clone() InUse {
	return InUse{Digests: maps.Clone(u.Digests), References: maps.Clone(u.References), Time: u.Time}
}

// Users is a Client for whoever wants digests alone.
type Users struct{ *Client }

// InUse returns what [Client.InUse] does, without references and time; beside
// an error too.
func (u Users) InUse(ctx context.Context) (map[digest.Digest]string, error) {
	used, err := u.Client.InUse(ctx)
	return used.Digests, err
}

// listing is all that the runtime said.
type listing struct {
	pods       map[string]*runtime.PodSandbox
	containers []*runtime.Container
	images     []*runtime.Image
	sandboxes  map[string]string // ready sandboxes' IDs, to their images; "" if the runtime does not tell
}

// list asks in an order that misses nothing: an image is there before its
// container is, so the images are listed last.
func (c *Client) list(ctx context.Context, conn *grpc.ClientConn) (listing, error) {
	rt := runtime.NewRuntimeServiceClient(conn)
	l := listing{pods: map[string]*runtime.PodSandbox{}}
	pods, err := rt.ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{})
	if err != nil {
		return l, err
	}
	for _, p := range pods.GetItems() {
		l.pods[p.GetId()] = p
	}
	if l.sandboxes, err = c.sandboxImages(ctx, rt, pods.GetItems()); err != nil {
		return l, err
	}
	containers, err := rt.ListContainers(ctx, &runtime.ListContainersRequest{})
	if err != nil {
		return l, err
	}
	l.containers = containers.GetContainers()
	images, err := runtime.NewImageServiceClient(conn).ListImages(ctx, &runtime.ListImagesRequest{})
	l.images = images.GetImages()
	return l, err
}

// sandboxImages asks for the image of each sandbox that is ready. A list does
// not tell it, so that each new one costs a request; the others are remembered.
func (c *Client) sandboxImages(ctx context.Context, rt runtime.RuntimeServiceClient, pods []*runtime.PodSandbox) (map[string]string, error) {
	c.mu.Lock()
	known := maps.Clone(c.sandboxes)
	c.mu.Unlock()
	images := map[string]string{}
	for _, p := range pods {
		if p.GetState() != runtime.PodSandboxState_SANDBOX_READY {
			continue
		}
		id := p.GetId()
		if image, ok := known[id]; ok {
			images[id] = image
			continue
		}
		resp, err := rt.PodSandboxStatus(ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
		if isGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		images[id] = imageOf(resp.GetInfo())
	}
	c.mu.Lock()
	c.sandboxes = maps.Clone(images)
	c.mu.Unlock()
	return images, nil
}

// imageOf finds the image in what containerd and CRI-O tell beyond the CRI.
func imageOf(info map[string]string) string {
	var told struct {
		Image string `json:"image"`
	}
	// What is no such JSON tells no image: then all that the runtime pins count.
	_ = json.Unmarshal([]byte(info["info"]), &told)
	return told.Image
}

// inUse puts together what was said.
func (l listing) inUse() InUse {
	m := newMarker(l.images)
	for _, c := range l.containers {
		// One that exited is started again as long as its pod runs: it may be an
		// init container, or one that crashes. A state that is not known is none
		// that lets go of an image.
		if _, running := l.sandboxes[c.GetPodSandboxId()]; c.GetState() == runtime.ContainerState_CONTAINER_EXITED && !running {
			continue
		}
		who := l.who(c)
		known := m.mark(c.GetImageId(), who)
		if m.mark(c.GetImageRef(), who) || known {
			continue
		}
		// The image was removed from under its container. A name may have moved
		// to another one since, and is good enough only now.
		m.mark(c.GetImage().GetImage(), who)
		m.mark(c.GetImage().GetUserSpecifiedImage(), who)
	}
	for id, image := range l.sandboxes {
		who := podName(l.pods[id]) + ", sandbox"
		if image != "" {
			m.mark(image, who)
			continue
		}
		for _, img := range l.images {
			if img.GetPinned() {
				m.mark(img.GetId(), who)
			}
		}
	}
	return m.used
}

// who names the user of a container's image.
func (l listing) who(c *runtime.Container) string {
	return fmt.Sprintf("%s, container %s", podName(l.pods[c.GetPodSandboxId()]), c.GetMetadata().GetName())
}

func podName(p *runtime.PodSandbox) string {
	if p == nil {
		return "pod unknown"
	}
	return fmt.Sprintf("pod %s/%s", p.GetMetadata().GetNamespace(), p.GetMetadata().GetName())
}
