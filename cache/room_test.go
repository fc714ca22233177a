package cache

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// TestMakeRoom: a fill that does not fit has others evicted, as few as needed;
// what cannot be made to fit has nothing evicted.
func TestMakeRoom(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	e.image("oldest", 300*time.Hour, 1, 2)
	second := e.image("second", 200*time.Hour, 3, 4)
	pinned := e.image("pinned", 400*time.Hour, 5)
	if err := e.PutPin(Pin{Name: pinned.name}); err != nil {
		t.Fatal(err)
	}
	u := wantUsage(t, e.Store, "before")
	e.budget.MaxSize.Bytes = u.Taken + 12<<10
	data, dgst := blobOf(9, 30_000)
	if err := e.Put(t.Context(), dgst, data, Facts{}); err != nil {
		t.Fatal(err)
	}
	e.wantStored(second.blobs()...)
	after := wantUsage(t, e.Store, "after")
	if over := after.Taken - after.Other - (u.Taken - u.Other + 12<<10); over > 0 { // the index may have grown
		t.Errorf("%d bytes over the budget: %+v", over, after)
	}
	e.budget.MaxSize.Bytes = after.Taken + 4<<10
	large, ldgst := blobOf(10, int(after.Stored)-8<<10)
	err := e.Put(t.Context(), ldgst, large, Facts{})
	if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "1 pinned by cli as "+pinned.name) {
		t.Errorf("a blob for which pins leave no room: %v", err)
	}
	e.wantStored(append(second.blobs(), dgst)...)
}

// TestMakeRoomLate: room that comes too late for one is there for the next.
func TestMakeRoomLate(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	e.image("old", 300*time.Hour, 1, 2)
	asked, answer := make(chan struct{}), make(chan struct{})
	NewKeeper(e.Store, KeeperConfig{Users: inUse(func() (map[digest.Digest]string, error) {
		close(asked)
		<-answer
		return nil, nil
	})})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { failed <- e.makeRoom(ctx, 1) }()
	<-asked
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(answer)
	if err := e.evictor.turn(patience(t)); err != nil {
		t.Fatal(err)
	}
	e.passOver(passOptions{}, nil)
	if _, err := e.Tag(testRepo + ":old"); !errdefs.IsNotFound(err) {
		t.Errorf("nothing was evicted for one who gave up: %v", err)
	}
}

// TestMakeRoomBesideOthers: that somebody else's pass evicts nothing, or is ended,
// costs nobody room who wants some meanwhile.
func TestMakeRoomBesideOthers(t *testing.T) {
	t.Parallel()
	for name, dry := range map[string]bool{"a dry run": true, "one that is ended": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEvictions(t)
			e.image("old", 300*time.Hour, 1, 2)
			asked, answer := make(chan struct{}, 2), make(chan struct{})
			NewKeeper(e.Store, KeeperConfig{Users: inUse(func() (map[digest.Digest]string, error) {
				asked <- struct{}{}
				<-answer
				return nil, nil
			})})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error)
			go func() {
				_, err := e.Collect(ctx, CollectOptions{To: 0, DryRun: dry})
				ended <- err
			}()
			<-asked
			got := make(chan error)
			go func() { got <- e.makeRoom(patience(t), 1) }()
			for wants := 0; wants == 0; runtime.Gosched() {
				e.evictor.mu.Lock()
				wants = len(e.evictor.wants)
				e.evictor.mu.Unlock()
			}
			if !dry {
				cancel()
			}
			close(answer)
			if err := <-ended; dry && err != nil {
				t.Error(err)
			}
			if err := <-got; err != nil {
				t.Errorf("no room: %v", err)
			}
			if _, err := e.Tag(testRepo + ":old"); !errdefs.IsNotFound(err) {
				t.Errorf("nothing was evicted: %v", err)
			}
		})
	}
}
