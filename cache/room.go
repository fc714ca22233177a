package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/opencontainers/go-digest"
)

// evictor makes room in a store: for those who want some now, and for the Keeper.
// One pass runs at a time and serves all who wait.
type evictor struct {
	mu      sync.Mutex // guards what follows
	costs   Costs
	users   Users
	known   map[digest.Digest]string // what was in use when that could last be told
	trouble string                   // why there was no room when it was wanted last
	wants   []*want
	late    int64           // what one who gave up would have needed: the next one comes soon
	full    chan struct{}   // has one in it when the high mark was passed
	called  chan struct{}   // closed, and replaced, when somebody wants room
	running chan struct{}   // closed when the pass that runs is over; nil if none runs
	ending  bool            // the store is being closed
	ctx     context.Context //nolint:containedctx // of the passes that nobody waits for: they end with the store
	cancel  context.CancelFunc
}

// want is a wish for room.
type want struct {
	bytes int64 // that are still missing
	seen  bool  // by a pass that evicts for it
	done  chan error
}

func (e *evictor) start() {
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.called, e.full = make(chan struct{}), make(chan struct{}, 1)
}

// noteFull wakes the Keeper.
func (e *evictor) noteFull() {
	select {
	case e.full <- struct{}{}:
	default:
	}
}

// stop ends the pass that runs and lets none begin.
func (e *evictor) stop() {
	e.mu.Lock()
	e.ending = true
	e.mu.Unlock()
	e.cancel()
}

func (e *evictor) consults() (Costs, Users) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.costs, e.users
}

// usersPatience bounds the question what is in use.
const usersPatience = 3 * time.Second

// inUse asks what is in use. With an error comes what was in use when that could
// last be told; nil if it never could.
func (e *evictor) inUse(ctx context.Context, users Users) (map[digest.Digest]string, error) {
	if users == nil {
		return map[digest.Digest]string{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, usersPatience)
	defer cancel()
	now, err := users.InUse(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		return e.known, err
	}
	e.known = maps.Clone(now)
	if e.known == nil {
		e.known = map[digest.Digest]string{}
	}
	return e.known, nil
}

func (e *evictor) noteProblem(why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trouble = why
}

func (e *evictor) problem() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.trouble
}

// makeRoom frees that many bytes, whoever gets them, and returns when it is done.
// If as much may not be evicted it evicts nothing and says why not.
func (s *Store) makeRoom(ctx context.Context, bytes int64) error {
	e := &s.evictor
	w := &want{bytes: bytes, done: make(chan error, 1)}
	e.mu.Lock()
	if e.ending {
		e.mu.Unlock()
		return errClosed
	}
	e.wants = append(e.wants, w)
	close(e.called)
	e.called = make(chan struct{})
	if e.running == nil {
		s.startPass()
	}
	e.mu.Unlock()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		e.mu.Lock()
		e.wants = slices.DeleteFunc(e.wants, func(o *want) bool { return o == w })
		e.late = max(e.late, w.bytes)
		e.mu.Unlock()
		return context.Cause(ctx)
	}
}

// startPass runs a pass for those who wait. The evictor's mu is held, and no pass
// runs.
func (s *Store) startPass() {
	e := &s.evictor
	e.running = make(chan struct{})
	s.fillers.Add(1) // Close waits: whoever wants room has a fill, or an open store
	go func() {
		defer s.fillers.Done()
		_, _ = s.runPass(e.ctx, passOptions{why: "room was needed", forWants: true}) // who waits hears of it
	}()
}

// passOptions say what a pass is for.
type passOptions struct {
	to     func() int64 // how many bytes are to go besides those that are wanted; nil: none
	toSize bool         // somebody wants the store itself to be smaller
	gentle bool         // pause between the steps as long as nobody waits
	dry    bool
	why    string
	report func(Eviction)
	// forWants is set for a pass that nobody else asked for.
	forWants bool
}

// turn waits for the pass that runs, and makes the next one the caller's.
func (e *evictor) turn(ctx context.Context) error {
	for {
		e.mu.Lock()
		if e.ending {
			e.mu.Unlock()
			return errClosed
		}
		running := e.running
		if running == nil {
			e.running = make(chan struct{})
			e.mu.Unlock()
			return nil
		}
		e.mu.Unlock()
		select {
		case <-running:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// collect runs a pass when it is its turn.
func (s *Store) collect(ctx context.Context, o passOptions) (Collected, error) {
	if err := s.evictor.turn(ctx); err != nil {
		return Collected{}, err
	}
	return s.runPass(ctx, o)
}

// Collected is what a pass has done.
type Collected struct {
	Images int   `json:"images"`
	Blobs  int   `json:"blobs"`
	Bytes  int64 `json:"bytes"`
	// Missing is how much more should have gone, and Stays why not: how many
	// images stay, by reason.
	Missing int64          `json:"missing"`
	Stays   map[string]int `json:"stays,omitempty"`
}

// gentlePause is between the steps of a pass that nobody waits for.
const gentlePause = 20 * time.Millisecond

// runPass evicts until nobody wants more. The turn is the caller's and ends here.
func (s *Store) runPass(ctx context.Context, o passOptions) (done Collected, err error) {
	e := &s.evictor
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(e.ctx, func() { cancel(errClosed) })()
	defer func() { s.passOver(o, err) }()
	for {
		bytes := done.Bytes
		err := s.runChoice(ctx, o, &done)
		if err != nil || o.dry || done.Missing == 0 || done.Bytes == bytes {
			return done, err
		}
		// All that was chosen is gone, and more is wanted: there may be new blobs.
	}
}

// runChoice chooses once, and evicts that until nobody wants more or nothing of it
// is left. What is still wanted then is missing in done.
func (s *Store) runChoice(ctx context.Context, o passOptions, done *Collected) (err error) {
	e := &s.evictor
	p, err := s.beginPass(ctx, o.why)
	if err != nil {
		return fmt.Errorf("choose what to evict: %w", err)
	}
	defer p.end()
	defer func() { err = errors.Join(err, p.forget()) }()
	p.dry, p.forDisk = o.dry, !o.toSize && s.isBoundByDisk()
	done.Stays = p.stays
	most := p.obtainable(e.wanted(o.dry))
	left := most
	for {
		if left == most && !o.dry {
			e.refuse(left, p)
		}
		done.Missing = max(0, e.wanted(o.dry))
		if o.to != nil {
			to := o.to()
			if o.dry {
				to -= done.Bytes // which it has not really freed
			}
			done.Missing = max(done.Missing, to)
		}
		if done.Missing == 0 && len(p.dead) > 0 {
			if err := p.forget(); err != nil { // the index may have grown by that
				return err
			}
			continue
		}
		if done.Missing == 0 {
			return nil
		}
		went, freed, err := p.next(ctx, done.Missing)
		if err != nil {
			return fmt.Errorf("evict: %w", err)
		}
		if len(went) == 0 {
			return nil
		}
		left -= freed
		done.Bytes += freed
		for _, ev := range went {
			done.add(ev)
			if o.report != nil {
				o.report(ev)
			}
			if !o.dry {
				s.logger.Info("evicted", "names", strings.Join(ev.Names, " "), "digest", ev.Digest, "blobs", ev.Blobs, "bytes", ev.Bytes, "why", ev.Why)
			}
		}
		if o.dry {
			continue
		}
		e.settle(freed)
		if o.gentle {
			e.yield(ctx)
		}
	}
}

func (c *Collected) add(ev Eviction) {
	c.Blobs += ev.Blobs
	if len(ev.Names) > 0 {
		c.Images++
	}
}

// StaysText says what stays and why, "" if nothing has to.
func (c Collected) StaysText() string { return staysText(c.Stays) }

// wanted is how much is wanted by those who wait.
func (e *evictor) wanted(dry bool) (bytes int64) {
	if dry {
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.wants {
		w.seen = true
		bytes += w.bytes
	}
	return bytes + e.late
}

// refuse turns away those who want more than may be evicted.
func (e *evictor) refuse(left int64, p *pass) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wants = slices.DeleteFunc(e.wants, func(w *want) bool {
		if w.bytes <= left {
			return false
		}
		w.done <- fmt.Errorf("only %s may be evicted%s", humanize.IBytes(uint64(max(0, left))), theRest(p.stays))
		return true
	})
}

// settle hands out what was freed, to those who came first.
func (e *evictor) settle(bytes int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.wants) > 0 && bytes > 0 {
		w := e.wants[0]
		got := min(bytes, w.bytes)
		w.bytes -= got
		bytes -= got
		if w.bytes > 0 {
			return
		}
		w.done <- nil
		e.trouble = ""
		e.wants = e.wants[1:]
	}
	e.late = max(0, e.late-bytes)
}

var errNothingLeft = errors.New("what may be evicted is in use now, or containerd has the same files")

// passOver ends the turn. Who still waits gets no room from this pass. Those of
// whom it did not know, or who only had it fail because somebody else ended it,
// get one of their own.
func (s *Store) passOver(o passOptions, err error) {
	e := &s.evictor
	e.mu.Lock()
	defer e.mu.Unlock()
	isTheirs := func(w *want) bool { return e.ending || o.forWants && err != nil || err == nil && w.seen }
	if err == nil {
		err = errNothingLeft
	}
	e.wants = slices.DeleteFunc(e.wants, func(w *want) bool {
		if !isTheirs(w) {
			return false
		}
		w.done <- err
		return true
	})
	e.late = 0
	if e.running != nil {
		close(e.running)
		e.running = nil
	}
	if len(e.wants) > 0 {
		s.startPass()
	}
}

// yield leaves the disk to others for a moment, if nobody waits for room.
func (e *evictor) yield(ctx context.Context) {
	e.mu.Lock()
	busy, called := len(e.wants) > 0, e.called
	e.mu.Unlock()
	if busy {
		return
	}
	t := time.NewTimer(gentlePause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-called:
	case <-ctx.Done():
	}
}

// staysText says how many images stay, by reason; "" if none does.
func staysText(stays map[string]int) string {
	var parts []string
	for _, why := range slices.Sorted(maps.Keys(stays)) {
		parts = append(parts, fmt.Sprintf("%d %s", stays[why], why))
		if len(parts) == 5 && len(stays) > 5 {
			parts = append(parts, fmt.Sprintf("%d more reasons", len(stays)-5))
			break
		}
	}
	return strings.Join(parts, ", ")
}

// theRest ends a sentence with it.
func theRest(stays map[string]int) string {
	if len(stays) == 0 {
		return ""
	}
	return ", the rest stays: " + staysText(stays)
}
