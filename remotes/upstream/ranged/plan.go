package ranged

import (
	"context"
	"errors"
	"slices"
	"time"
)

const (
	// leapTime is how long one connection alone goes on before it is looked at
	// whether more are worth it.
	leapTime = 500 * time.Millisecond
	// leadOpenings is how many times as long as an opening takes a leap is opened
	// before it is needed, leastLead and maxLead bound it in bytes.
	leadOpenings = 4
	leastLead    = 1 << 20
	maxLead      = 64 << 20
)

// plan has somebody fetch what nobody does. b.mu is held, here and in all of
// this file.
func (b *Body) plan(now time.Time) {
	if b.closed {
		return
	}
	for _, s := range b.takeParked() {
		b.employ(s)
	}
	if b.next < b.size && !b.single && b.nearEnd(First) {
		for b.extras < b.connections-1 && b.next < b.size && b.add() {
		}
	}
	if b.next < b.size {
		b.planBase(now)
	}
}

// nearEnd reports whether no more than this is left of a leap that is behind all
// that is fetched. What is fetched behind it waits in memory until it ends.
func (b *Body) nearEnd(left int64) bool {
	if len(b.parts) == 0 {
		return true
	}
	tail := b.parts[len(b.parts)-1]
	return !tail.leap || tail.left() <= left
}

// planBase gives the connection that the body has anyhow something to do.
func (b *Body) planBase(now time.Time) {
	if b.extras > 0 && !b.single {
		if b.baseFree && b.nearEnd(First) {
			if p := b.part(b.base); p != nil {
				b.baseFree = false
				b.start(p)
			}
		}
		if len(b.parts) > 0 {
			return // without memory, others bring what is next
		}
	}
	lead := b.lead(now)
	switch {
	case b.baseFree && len(b.parts) == 0:
		b.baseFree = false
		b.leap(b.base, now, false)
	case b.baseFree && b.next-b.pos <= lead:
		b.baseFree = false
		b.leap(b.base, now, true)
	case !b.baseFree && len(b.parts) == 1 && b.parts[0].slot == b.base && b.parts[0].leap && b.parts[0].left() <= lead:
		if release, ok := b.source.Overlap(); ok {
			s := &slot{release: release, overlap: true, used: true}
			b.slots = append(b.slots, s)
			b.leap(s, now, true)
		}
	}
}

// speed of the body so far in bytes a second; 0 if it is too early to tell.
func (b *Body) speed(now time.Time) float64 {
	if took := now.Sub(b.began); took >= 5*time.Millisecond {
		return float64(b.pos-b.from) / took.Seconds()
	}
	return 0
}

// lead is how many bytes before its end a leap's successor is opened, so that
// its first byte is there when it is needed.
func (b *Body) lead(now time.Time) int64 {
	ahead := max(leadOpenings*b.governor.Opening(), 100*time.Millisecond)
	return min(max(int64(b.speed(now)*ahead.Seconds()), leastLead), maxLead)
}

// leap appends a leap: as much as comes by one connection while nothing else will be
// tried, and all that is left if nothing ever will. What several have brought so
// far would make it too long: nobody else fetches anything before it is near its end.
func (b *Body) leap(s *slot, now time.Time, ahead bool) {
	speed := b.speed(now)
	if b.leapt.took > leastSpan/2 {
		speed = min(speed, b.leapt.speed())
	}
	n := min(max(int64(speed*max(leapTime, b.governor.Resting()).Seconds()), First), maxLeap)
	if left := b.size - b.next; b.single || left-n < First {
		n = left
	}
	p := &part{first: b.next, last: b.next + n - 1, slot: s, leap: true}
	b.append(p)
	if !ahead {
		return
	}
	p.opening = make(chan opened, 1)
	to, first, last := p.opening, p.first, p.last
	b.running.Go(func() {
		began := time.Now()
		body, err := b.source.Ahead(b.ctx, first, last)
		if err == nil {
			b.governor.Opened(time.Since(began), false)
		}
		to <- opened{body, err}
	})
}

func (b *Body) append(p *part) {
	b.parts = append(b.parts, p)
	b.next = p.last + 1
}

// add begins one more connection, if memory, upstream and governor allow it.
func (b *Body) add() bool {
	n := b.reserve()
	if n == 0 {
		return false
	}
	release, ok := b.source.More()
	if !ok {
		b.memory.release(n)
		return false
	}
	s := &slot{release: release}
	b.slots = append(b.slots, s)
	b.extras++
	b.start(b.reserved(s, n))
	return true
}

// reserve promises memory for the next part: 0 if there is none.
func (b *Body) reserve() int64 {
	n := (min(Part, b.size-b.next) + blockSize - 1) / blockSize * blockSize
	if !b.memory.reserve(n) {
		return 0
	}
	return n
}

// reserved appends a part for which there is memory.
func (b *Body) reserved(s *slot, n int64) *part {
	length := min(Part, b.size-b.next)
	p := &part{begin: b.next, length: length, first: b.next, last: b.next + length - 1, slot: s, reserved: n, at: time.Now(), mark: b.received}
	b.append(p)
	return p
}

// part appends the next part for a slot, nil if there is no memory.
func (b *Body) part(s *slot) *part {
	n := b.reserve()
	if n == 0 {
		return nil
	}
	return b.reserved(s, n)
}

func (b *Body) start(p *part) {
	ctx := b.begin(p)
	b.running.Add(1)
	go b.work(ctx, p)
}

func (b *Body) begin(p *part) context.Context {
	ctx, cancel := context.WithCancel(b.ctx)
	p.cancel = cancel
	return ctx
}

// fetched says what a slot does behind a part: the next one, or nil.
func (b *Body) fetched(p *part, err error) (*part, context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.wakeUp()
	p.finished = true
	switch {
	case p.dropped:
		b.free(p)
		b.letGo(p.slot)
		return nil, nil
	case p.err != nil: // given up; its slot fetches the rest
		if p.leap {
			b.free(p)
		}
		return nil, nil
	case err != nil:
		p.err = err
		b.note(err)
		return nil, nil
	}
	s := p.slot
	p.slot = nil
	if next := b.following(s); next != nil {
		return next, b.begin(next)
	}
	return nil, nil
}

// employ is following for a slot that has no goroutine.
func (b *Body) employ(s *slot) {
	if p := b.following(s); p != nil {
		b.start(p)
	}
}

// following returns the next part for a slot. It is nil if the slot is let go,
// and if it is parked until there is memory.
func (b *Body) following(s *slot) *part {
	extra := s != b.base
	if b.closed || b.single || b.next >= b.size || extra && b.governor.TooMany() || !extra && b.extras == 0 {
		b.letGo(s)
		return nil
	}
	if p := b.part(s); p != nil {
		return p
	}
	if !slices.ContainsFunc(b.parts, func(p *part) bool { return p.reserved > 0 }) {
		b.letGo(s) // the memory is with others, and nobody says when it comes back
		return nil
	}
	b.parked = append(b.parked, s)
	return nil
}

func (b *Body) takeParked() []*slot {
	parked := b.parked
	b.parked = nil
	return parked
}

// letGo gives a connection back.
func (b *Body) letGo(s *slot) {
	if s == b.base {
		b.baseFree = true
		return
	}
	i := slices.Index(b.slots, s)
	if i < 0 {
		return
	}
	b.slots = slices.Delete(b.slots, i, i+1)
	if !s.overlap {
		b.extras--
	}
	s.release()
}

// leave ends a part that is delivered.
func (b *Body) leave(p *part) {
	if !p.leap || p.finished {
		b.free(p)
	}
	if p.leap {
		_ = b.closeLeap(p) // all of it was read
	}
	s := p.slot
	if s == nil {
		return
	}
	if s == b.base {
		// An overlap is over: its leap goes on in the place of this one.
		for _, other := range b.parts {
			if other.leap && other.slot != nil && other.slot.overlap {
				s, other.slot = other.slot, b.base
				break
			}
		}
	}
	b.letGo(s)
}

// drop gives up a part that will not be delivered.
func (b *Body) drop(p *part) {
	if p.leap {
		b.running.Go(func() {
			_ = b.closeLeap(p) // nobody reads it
			b.mu.Lock()
			defer b.mu.Unlock()
			b.letGo(p.slot)
		})
		return
	}
	p.dropped = true
	b.giveUp(p, errDropped)
	if p.finished {
		b.free(p)
		if p.slot != nil {
			b.letGo(p.slot)
		}
	}
}

// note draws the conclusions from a part that failed.
func (b *Body) note(err error) {
	if b.ctx.Err() != nil {
		return // it was not upstream
	}
	var refused openError
	if errors.As(err, &refused) {
		b.single = true
		b.governor.Refused()
		return
	}
	if b.faults++; b.faults >= maxFaults {
		b.single = true
	}
}
