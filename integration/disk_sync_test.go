package integration

import (
	"fmt"
	"testing"

	"github.com/larder-project/larder/integration/internal/disks"
	"github.com/larder-project/larder/remotes/remotestest"
)

// Power fails between a blob's rename and the fsync of its folder. XFS calls that
// fsync a success, although the name is lost; larder does not.
func TestCutBeforeFolderSync(t *testing.T) {
	t.Parallel()
	for _, kind := range []disks.Kind{disks.Ext4, disks.XFS} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			d := newDiskBench(t, disks.Options{Kind: kind})
			img := remotestest.Build(remotestest.ImageSpec{Seed: 930, Layers: []int64{100_000}})
			d.upstream.PutImage(diskRepo, "cut", img)
			layer, config := img.Blobs[0].Descriptor.Digest, img.Blobs[1].Descriptor.Digest
			// All else is on disk: its fsync would bring the layer's name along.
			d.get(manifestURL(d.l.URL, diskRepo, "cut"), img.Root.Digest, true)
			d.get(blobURL(d.l.URL, diskRepo, config), config, true)
			eventually(t, "all but the layer is stored", func() bool { return published(d.l, img.Root.Digest) && published(d.l, config) })
			in := disks.Inject(t, d.l.PID(), "fsync:delay_enter=1000000")
			pulled := make(chan error, 1)
			go func() {
				_, err := d.l.Run(t.Context(), "pull", fmt.Sprintf("docker.io/%s:cut", diskRepo))
				pulled <- err
			}()
			eventually(t, "the layer has its name", func() bool { return published(d.l, layer) })
			d.disk.Cut()
			if err := <-pulled; err == nil {
				t.Error("larder says that it is stored")
			}
			in.Stop()
			if err := d.l.Kill(); err != nil {
				t.Error(err)
			}
			d.disk.Revive()
			if published(d.l, layer) {
				t.Error("its name is on disk: this test shows nothing")
			}
			if err := d.l.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.pull("cut", img, true)
		})
	}
}
