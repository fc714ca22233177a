package integration

import (
	"path/filepath"
	"testing"

	"github.com/larder-project/larder/integration/internal/disks"
)

// A drive writes its buffer in whatever order it likes, and loses any of it
// when the power fails between two flushes. Each such disk is one that larder
// starts on, with whole blobs only, and the file system is clean.
func TestTornWrites(t *testing.T) {
	t.Parallel()
	drive := disks.NewDrive(t, 64<<20)
	disk := disks.New(t, disks.Options{Kind: disks.Ext4, Backing: drive.File()})
	disk.Unmount()
	base := filepath.Join(t.TempDir(), "base")
	drive.Image(base)
	drive.Record()
	disk.Mount()
	c := newCrash(t, disk.Path)
	c.noError(c.l.Start(t.Context()))
	var said []int // how much the drive had been told when larder said that it has an image
	for range 4 {
		c.pullVerb(t.Context(), c.offer())
		said = append(said, len(drive.Log()))
	}
	c.noError(c.l.Kill())
	log := drive.Log()
	if len(c.acked) != 4 || len(log) < 20 {
		t.Fatalf("%d images stored, %d operations of the drive", len(c.acked), len(log))
	}
	c.upstream.Stop()
	replays, images := count(t, "LARDER_REPLAYS", 20), 0
	for range replays {
		images += replayed(c, base, log, said)
	}
	t.Logf("%d operations of the drive, %d replays: %d images had to be there, %d of them lost", len(log), replays, images, c.lost)
	if images == 0 {
		t.Error("no replay had to have an image: this test shows little")
	}
}

// replayed looks at one of the disks that a power cut may have left. It returns
// how many images had to be there.
func replayed(c *crash, base string, log []disks.Op, said []int) (images int) {
	c.t.Helper()
	n, share := c.rng.IntN(len(log)+1), c.rng.Float64()
	image := filepath.Join(c.t.TempDir(), "image")
	c.noError(disks.Replay(image, base, log, n, func(int) bool { return c.rng.Float64() < share }))
	disk := disks.New(c.t, disks.Options{Kind: disks.Ext4, Backing: image, Formatted: true})
	disk.Check()
	c.noError(c.l.SetRoot(filepath.Join(disk.Path, "store")))
	c.checkFiles()
	c.noError(c.l.Start(c.t.Context()))
	for i, at := range said {
		if at <= n {
			c.checkImage(c.acked[i])
			images++
		}
	}
	c.noError(c.l.Close())
	return images
}
