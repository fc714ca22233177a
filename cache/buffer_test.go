package cache

import (
	"os"
	"runtime"
	"testing"
)

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
