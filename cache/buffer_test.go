package cache

import (
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// residentPages is how many pages of p are in memory.
func residentPages(t *testing.T, p []byte) (n int) {
	t.Helper()
	pages := make([]byte, len(p)/os.Getpagesize())
	// mincore(2) counts of such memory what this process has touched.
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		t.Fatal(errno)
	}
	for _, page := range pages {
		n += int(page & 1)
	}
	return n
}

// TestBuffersGiveMemoryBack has many buffers in use, and then none: a few keep their
// memory, the others have none but can be taken again, and all end with the store.
func TestBuffersGiveMemoryBack(t *testing.T) {
	t.Parallel()
	var b buffers
	const many = 3 * warmBuffers
	use := func() (used []*[]byte) {
		for range many {
			buf := b.take()
			for i := range *buf {
				(*buf)[i] = 1
			}
			used = append(used, buf)
		}
		return used
	}
	for range 2 {
		used := use()
		if len(b.all) != many || len(b.free) != 0 {
			t.Fatalf("%d buffers, %d of them free, want %d in use", len(b.all), len(b.free), many)
		}
		for _, buf := range used {
			b.give(buf)
		}
		resident := 0
		for buf := range b.all {
			resident += residentPages(t, *buf) * os.Getpagesize()
		}
		if want := warmBuffers * copyBuffer; resident != want {
			t.Errorf("%d bytes are in memory when all are free, want %d", resident, want)
		}
	}
	used := use()
	b.give(used[0])
	if err := b.close(); err != nil {
		t.Error(err)
	}
	for _, buf := range used[1:] {
		(*buf)[0] = 2 // closed or not, it is lent
		b.give(buf)
	}
	if late := b.take(); len(b.all) != 1 {
		t.Errorf("%d buffers after the end, want the one that was taken since", len(b.all))
	} else {
		b.give(late)
	}
	if len(b.all) != 0 || len(b.free) != 0 {
		t.Errorf("%d buffers are left, %d of them free", len(b.all), len(b.free))
	}
}

// TestAllocationsOfFills has fills share their buffers, one after the other. It runs by
// itself (make allocs): the race detector drops some of what is given back.
//
//nolint:paralleltest // it counts all of the process
func TestAllocationsOfFills(t *testing.T) {
	if os.Getenv("LARDER_TEST_ALLOCS") == "" {
		t.Skip("set LARDER_TEST_ALLOCS, as make allocs does")
	}
	s := openStore(t, t.TempDir())
	fill := func(seed uint64) {
		data, dgst := blobOf(seed, 1000)
		if err := startFill(t, s, dgst, -1, scripted(sends(data))).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	fill(0)
	const fills = 50
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range uint64(fills) {
		fill(1 + i)
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / fills; each >= copyBuffer {
		t.Errorf("a fill of 1000 bytes allocates %d bytes, want less than a buffer's %d", each, copyBuffer)
	} else {
		t.Logf("a fill allocates %d bytes", each)
	}
}
