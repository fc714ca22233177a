package cache

import (
	"io/fs"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// lazyDisk says yes to a sync and does nothing. The index is not under it.
type lazyDisk struct{ Disk }

func (d lazyDisk) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := d.Disk.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return lazyFile{f}, nil
}

type lazyFile struct{ File }

func (lazyFile) Sync() error { return nil }

// BenchmarkDurability publishes blobs with and without fsync. It only reports:
// nothing of it is a bound. `make bench-durability` runs it over 1,000 small
// blobs and 10 large ones.
func BenchmarkDurability(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"small", 64 << 10}, {"large", 100 << 20}} {
		b.Run(size.name+"/synced", func(b *testing.B) { benchPublish(b, OSDisk(), size.bytes) })
		b.Run(size.name+"/unsynced", func(b *testing.B) { benchPublish(b, lazyDisk{OSDisk()}, size.bytes) })
	}
}

func benchPublish(b *testing.B, disk Disk, size int) {
	s := openStore(b, b.TempDir(), WithDisk(disk))
	data, _ := blobOf(1, size)
	var took []time.Duration
	b.SetBytes(int64(size))
	for n := uint64(2); b.Loop(); n++ {
		b.StopTimer()
		blob, _ := blobOf(n, 32)
		copy(data, blob) // another blob each time; making all bytes anew would take longer than storing them
		dgst := digest.FromBytes(data)
		b.StartTimer()
		begun := time.Now()
		if err := startFill(b, s, dgst, int64(size), scripted(sends(data))).Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "blobs/s")
	b.ReportMetric(float64(took[(len(took)-1)*99/100].Microseconds())/1000, "p99-ms")
}
