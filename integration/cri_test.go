package integration

import (
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// The kubelet's way: PullImage of the CRI, through the transfer service and by
// the CRI plugin itself.
func TestCRIPullOutlivesUpstream(t *testing.T) {
	t.Parallel()
	for name, localPull := range map[string]bool{"transfer": false, "local": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder", "containerd", "ctr", "registry")
			registry, meter := b.registry()
			img := remotestest.Build(remotestest.ImageSpec{
				Seed: 20, Layers: []int64{2 << 20, 30_000}, Platforms: []string{"linux/amd64", "linux/arm64"},
			})
			if err := remotestest.Push(t.Context(), registry.URL, "library/app", "1", img); err != nil {
				t.Fatal(err)
			}
			l := b.larder(ecrHosts + dockerHub(meter.URL()))
			c := b.containerd(b.certs(l), localPull)
			images := imageService(t, c)

			criPull(t, images, "docker.io/library/app:1")
			if meter.Total().Requests == 0 {
				t.Fatal("cold pull: nothing passed the meter")
			}
			if err := parts.DeleteImage(t.Context(), registry.URL, "library/app", "1"); err != nil {
				t.Fatal(err)
			}
			if err := meter.Cut(); err != nil {
				t.Fatal(err)
			}
			for form, ref := range nameForms("app", "1") {
				if err := c.Forget(t.Context(), "k8s.io"); err != nil {
					t.Fatalf("%s name: %v", form, err)
				}
				criPull(t, images, ref)
			}
		})
	}
}

// containerd can fetch one layer in chunks over several connections. Each asks
// for an open-ended range and leaves when it has its part: upstream must still
// send the layer once.
func TestCRIPullInChunks(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "containerd", "ctr")
	upstream := remotestest.New(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 21, Layers: []int64{16 << 20}})
	upstream.PutImage("library/app", "1", img)
	l := b.larder(dockerHub(upstream.URL()))
	certs, node := b.certsBehindMeter(l)
	c := b.containerdWith(parts.ContainerdOptions{CertsDir: certs, LocalPull: true, ChunkSize: 2 << 20, Downloads: 4})
	images := imageService(t, c)
	for _, when := range []string{"cold", "warm"} {
		criPull(t, images, "docker.io/library/app:1")
		if err := c.Forget(t.Context(), "k8s.io"); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	ranges := 0
	for _, e := range node.Exchanges() {
		if e.Range != "" && strings.Contains(e.Path, largest(img).Digest.String()) {
			ranges++
		}
	}
	if ranges < 2 {
		t.Errorf("containerd sent %d requests with Range for the layer, so it did not fetch in chunks", ranges)
	}
	sent := int64(0)
	for _, q := range upstream.Requests() {
		if strings.Contains(q.Path, "/blobs/"+largest(img).Digest.String()) {
			sent += q.Bytes
		}
	}
	if sent != largest(img).Size {
		t.Errorf("upstream sent %d bytes of the layer, want %d", sent, largest(img).Size)
	}
}

func imageService(t *testing.T, c *parts.Containerd) cri.ImageServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+c.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return cri.NewImageServiceClient(conn)
}

// criPull pulls as the kubelet does and checks that the CRI then has the image.
func criPull(t *testing.T, images cri.ImageServiceClient, ref string) {
	t.Helper()
	spec := &cri.ImageSpec{Image: ref}
	if _, err := images.PullImage(t.Context(), &cri.PullImageRequest{Image: spec}); err != nil {
		t.Fatalf("PullImage %s: %v", ref, err)
	}
	status, err := images.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: spec})
	if err != nil {
		t.Fatal(err)
	}
	if status.GetImage() == nil {
		t.Errorf("ImageStatus %s: not there after a pull that succeeded", ref)
	}
}
