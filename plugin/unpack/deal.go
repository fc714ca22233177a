package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/pkg/archive"
)

const (
	blockSize = 512 // of a tar stream
	// entryCost is what an entry costs beside its bytes, in bytes: so many are
	// written while a file is made.
	entryCost = 32 << 10
	// manyFiles is when the ledger is looked through for files that are written.
	manyFiles = 4096
)

// errUndealt says that a layer has what cannot be dealt out.
var errUndealt = errors.New("layer cannot be unpacked by several at once")

// dealer deals the entries of a layer out to several appliers.
type dealer struct {
	tape   tape
	table  *table
	spine  *hand   // has all whose order matters
	sides  []*hand // have plain files
	ledger *ledger
	naive  bool // whiteouts take files away, rather than hide them
}

// deal writes a layer into a folder that was empty, by sides appliers beside the
// spine. If it is errUndealt, some of the files may be there.
func deal(ctx context.Context, s *stream, root string, sides int, naive bool, opts ...archive.ApplyOpt) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := newTable(cancel)
	d := &dealer{tape: tape{ctx: ctx, in: s}, table: t, spine: t.spine, ledger: newLedger(), naive: naive}
	for range sides {
		d.sides = append(d.sides, t.newHand())
	}
	defer context.AfterFunc(ctx, func() { t.fail(context.Cause(ctx)) })()

	var atSides, atSpine sync.WaitGroup
	apply := func(h *hand) {
		if _, err := archive.Apply(ctx, root, h, opts...); err != nil {
			t.fail(err)
		}
		for range h.queue { // none, unless it failed
		}
	}
	atSpine.Go(func() { apply(d.spine) })
	for _, h := range d.sides {
		atSides.Go(func() { apply(h) })
	}
	if err := d.run(); err != nil {
		t.fail(err)
	}
	d.tape.close()
	for _, h := range d.sides {
		close(h.queue)
	}
	atSides.Wait()
	close(d.spine.queue) // it now sets the times of the folders, in which nothing is made any more
	atSpine.Wait()
	return t.failed()
}

// run deals all entries.
func (d *dealer) run() error {
	for {
		hdr, err := d.tape.header()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		h, err := d.whose(hdr)
		if err != nil {
			return err
		}
		if err := d.give(h, hdr); err != nil {
			return fmt.Errorf("%s: %w", hdr.Name, err)
		}
	}
}

// whose says who is to write an entry, and waits for what must be written before.
func (d *dealer) whose(hdr *tar.Header) (*hand, error) {
	if !isPlain(hdr) {
		return nil, errUndealt
	}
	name := path.Join("/", hdr.Name)
	isNew, isFolder, hides := d.ledger.isNew(name), d.ledger.isFolder(name), isWhiteout(name)
	switch {
	case hides && d.naive:
		return nil, errUndealt // it may ask what was written, by any of them
	case hides:
		return d.spine, d.settle()
	case hdr.Typeflag == tar.TypeReg && isNew:
		h := d.idlest()
		d.ledger.files[name] = place{h, h.dealt + 1}
		d.prune()
		return h, nil
	case hdr.Typeflag == tar.TypeDir && isFolder && hasXattrs(hdr):
		return d.spine, d.settle() // a file inherits the ACL that its folder has by then
	case hdr.Typeflag == tar.TypeDir && isFolder:
		return d.spine, nil
	case hdr.Typeflag == tar.TypeDir && isNew:
		d.ledger.folders[name] = struct{}{}
		return d.spine, nil
	}
	return d.spine, d.inOrder(hdr, name, isNew)
}

// inOrder waits until the spine may write an entry that is no plain file and no
// folder, or of whose place the ledger is not sure.
func (d *dealer) inOrder(hdr *tar.Header, name string, isNew bool) error {
	isLink := hdr.Typeflag == tar.TypeLink
	if isLink || hdr.Typeflag == tar.TypeSymlink {
		d.ledger.links[name] = struct{}{} // a hard link of a symbolic one is one, too
	}
	switch to := path.Join("/", hdr.Linkname); {
	case isNew && isLink && isClean(hdr.Linkname) && d.ledger.isFolder(path.Dir(to)):
		if at, ok := d.ledger.files[to]; ok {
			return d.table.await(at.hand, at.n)
		}
		return nil
	case isNew && !isLink:
		return nil
	}
	if d.ledger.isFolder(name) {
		d.ledger.forget()
	}
	switch {
	case hdr.Typeflag == tar.TypeDir:
		d.ledger.learn(name)
	case d.ledger.learn(path.Dir(name)):
	default: // it goes over a link, in the place of whatever is there
		d.ledger.forget()
		d.ledger.lost = d.ledger.lost || isLink || hdr.Typeflag == tar.TypeSymlink
	}
	return d.settle()
}

// isClean says that a hard link's target is what its words say: containerd follows
// links before it goes back by "..", and a link that a slash stands behind.
func isClean(target string) bool {
	target = strings.TrimPrefix(strings.TrimPrefix(target, "."), "/")
	return path.Join("/", target) == "/"+target
}

// settle waits until all files are written that were dealt.
func (d *dealer) settle() error {
	for _, h := range d.sides {
		if err := d.table.await(h, h.dealt); err != nil {
			return err
		}
	}
	clear(d.ledger.files)
	return nil
}

// prune has the ledger forget the files that are written.
func (d *dealer) prune() {
	if len(d.ledger.files) < manyFiles {
		return
	}
	d.table.mu.Lock()
	defer d.table.mu.Unlock()
	for name, at := range d.ledger.files {
		if at.hand.done >= at.n {
			delete(d.ledger.files, name)
		}
	}
}

// idlest is the side that has the least to do.
func (d *dealer) idlest() *hand {
	best := d.sides[0]
	for _, h := range d.sides[1:] {
		if h.load.Load() < best.load.Load() {
			best = h
		}
	}
	return best
}

// give has a hand write an entry.
func (d *dealer) give(h *hand, hdr *tar.Header) error {
	var size int64
	if hdr.Typeflag == tar.TypeReg {
		size = hdr.Size
	}
	if size > math.MaxInt64/2 { // no sum of it may overflow
		return errUndealt
	}
	left := size + padding(size+d.tape.bytes()) // archive/tar leaves a global header's padding for later
	now := turn{cost: size + entryCost}
	if h != d.spine {
		now.after = d.spine.dealt
	}
	h.dealt++
	h.load.Add(now.cost)
	for i, s := range d.tape.taken {
		now.ends = left == 0 && i == len(d.tape.taken)-1
		s.turn = now
		if err := d.send(h, s); err != nil {
			return err
		}
	}
	d.tape.taken = nil
	for left > 0 {
		s, err := d.tape.take(left)
		if errors.Is(err, io.EOF) {
			// The end may lack its padding, which containerd takes.
			return errUndealt
		}
		if err != nil {
			return err
		}
		left -= s.len()
		now.ends = left == 0
		s.turn = now
		if err := d.send(h, s); err != nil {
			return err
		}
	}
	return nil
}

// padding is what is behind n bytes until a block is full.
func padding(n int64) int64 { return -n & (blockSize - 1) }

func (d *dealer) send(h *hand, s segment) error {
	select {
	case h.queue <- s:
		return nil
	case <-d.tape.ctx.Done():
		return context.Cause(d.tape.ctx)
	}
}
