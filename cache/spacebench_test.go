package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// benchEnv is how many blobs the store of TestSpaceFigures has; it takes minutes
// and gigabytes, so that it runs by "make bench-space" only.
const benchEnv = "LARDER_BENCH_SPACE"

// TestSpaceFigures makes a store of very many blobs, of which the oldest have
// 10 GiB in large ones, and measures start, choice and eviction of 10 GiB in a
// process of its own.
func TestSpaceFigures(t *testing.T) {
	t.Parallel()
	blobs, err := strconv.Atoi(os.Getenv(benchEnv))
	if err != nil {
		t.Skip("takes minutes and gigabytes: make bench-space")
	}
	dir, err := os.MkdirTemp(os.Getenv("LARDER_BENCH_DIR"), "larder-bench")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	root := filepath.Join(dir, "store")
	began := time.Now()
	if err := makeLargeStore(root, blobs); err != nil {
		t.Fatal(err)
	}
	t.Logf("store of %d blobs made in %s", blobs, time.Since(began).Round(time.Second))
	out, err := child(t, "space", root).Output()
	t.Logf("figures:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

const (
	layersOfImage = 10
	largeLayer    = 24 << 20
	largeBytes    = 10 << 30
)

// makeLargeStore fills a store past its own ways in, which would sync each file.
func makeLargeStore(root string, blobs int) error {
	s, err := Open(root)
	if err != nil {
		return err
	}
	defer s.Close()
	s.index.db.NoSync = true
	images := blobs / (layersOfImage + 2)
	large := largeBytes / largeLayer
	rng := rand.NewChaCha8([32]byte{1})
	const batch = 5000
	for from := 0; from < images; from += batch {
		err := s.index.db.Update(func(tx *bolt.Tx) error {
			for i := from; i < min(from+batch, images); i++ {
				isLarge := i%4 == 0 && i/4 < large
				if err := s.makeLargeImage(tx, rng, i, images, isLarge); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	s.index.db.NoSync = false
	return errors.Join(s.index.db.Sync(), s.Recount(context.Background()))
}

// makeLargeImage makes image i of n: the higher its number, the later it was used.
func (s *Store) makeLargeImage(tx *bolt.Tx, rng *rand.ChaCha8, i, n int, isLarge bool) error {
	used := time.Now().Add(-time.Duration(n-i) * time.Minute)
	repository := fmt.Sprintf("registry.test/team-%d/app-%d", i%100, i)
	var dgsts []digest.Digest
	for j := range layersOfImage + 2 {
		var sum [32]byte
		_, _ = rng.Read(sum[:]) // never fails
		dgst := digest.NewDigestFromBytes(digest.SHA256, sum[:])
		size, mediaType := int64(1000), ocispec.MediaTypeImageLayerGzip
		if isLarge && j == layersOfImage+1 {
			size = largeLayer
		}
		if j == 0 {
			mediaType = ocispec.MediaTypeImageManifest
		}
		if err := makeFile(filepath.Join(s.root, "blobs", "sha256", dgst.Encoded()), size); err != nil {
			return err
		}
		dgsts = append(dgsts, dgst)
		facts := Facts{Size: size, MediaType: mediaType, Source: "https://upstream.test", Used: used}
		if err := putRecord(tx, blobsBucket, dgst.String(), blobRecord{facts, repository}); err != nil {
			return err
		}
	}
	var record []byte
	for _, dgst := range dgsts[1:] {
		record = appendDigest(record, dgst)
	}
	l := Link{Repository: repository, Digest: dgsts[0], Created: used}
	tag := Tag{Name: repository + ":1", Target: ocispec.Descriptor{Digest: dgsts[0]}, Source: "https://upstream.test", Created: used, Used: used}
	return errors.Join(
		putRecord(tx, manifestsBucket, l.key(), l), putRecord(tx, tagsBucket, tag.Name, tag),
		rawRecord{bucket: childrenBucket, key: childKey(dgsts[0]), value: record}.put(tx))
}

func makeFile(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o444)
	if err != nil {
		return err
	}
	if size >= 1<<20 {
		err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	} else {
		_, err = f.Write(make([]byte, size))
	}
	return errors.Join(err, f.Close())
}

// measureSpace is the process that is measured.
func measureSpace(ctx context.Context, args []string) error {
	var cpu time.Duration
	var ownPeak atomic.Int64 // what the kernel knows no peak of
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_, own, _ := memoryOf()
				ownPeak.Store(max(ownPeak.Load(), own))
			case <-watching.Done():
				return
			}
		}
	}()
	say := func(what string, began time.Time) {
		took := time.Since(began)
		used := cpuTime() - cpu
		cpu += used
		rss, own, peak := memoryOf()
		if _, err := fmt.Fprintf(os.Stdout, "%-64s %8s (CPU %8s)   RSS %4d MiB, peak %4d MiB; without the index's pages %3d MiB, peak %4d MiB\n",
			what, took.Round(time.Millisecond), used.Round(time.Millisecond), rss>>20, peak>>20, own>>20, ownPeak.Load()>>20); err != nil {
			panic(err)
		}
		_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // the peak begins anew
		ownPeak.Store(0)
	}
	began := time.Now()
	s, err := Open(args[0])
	if err != nil {
		return err
	}
	defer s.Close()
	say("start", began)
	if fi, err := os.Stat(filepath.Join(args[0], "index.db")); err == nil {
		say(fmt.Sprintf("index has %d MiB", fi.Size()>>20), time.Now())
	}
	began = time.Now()
	s.healer.wg.Wait()
	say("read the index behind it", began)
	u, err := s.Usage()
	if err != nil {
		return err
	}
	began = time.Now()
	p, err := s.beginPass(ctx, "")
	if err != nil {
		return err
	}
	say(fmt.Sprintf("choose among %d blobs, %d images", len(p.graph.keys), len(p.graph.images)), began)
	p.end()

	began = time.Now()
	done, err := s.Collect(ctx, CollectOptions{To: u.Taken - largeBytes})
	if err != nil {
		return err
	}
	say(fmt.Sprintf("choose and free %d MiB, %d images, %d blobs", done.Bytes>>20, done.Images, done.Blobs), began)
	began = time.Now()
	if err := s.Recount(ctx); err != nil {
		return err
	}
	say("recount", began)
	return nil
}

// cpuTime is what this process has used of the processors.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memoryOf reads this process's resident memory, what of it is no file's, and the
// most that it was since the peak was begun anew.
func memoryOf() (rss, own, peak int64) {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0, 0
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "VmRSS:":
			rss = n << 10
		case "RssAnon:":
			own = n << 10
		case "VmHWM:":
			peak = n << 10
		}
	}
	return rss, own, peak
}
