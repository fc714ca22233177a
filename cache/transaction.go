package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// database is an open bbolt file, or why there is none. It is safe for
// concurrent use.
type database struct {
	mu     sync.Mutex // guards what follows; no transaction runs under it
	db     *boltFile  // nil: not open
	why    error      // it is not open, or for reading only
	broken error      // damage was found: no more changes, until it is opened anew
	closed bool

	queueMu sync.Mutex // guards what follows
	queue   []*change  // that wait for the next commit
	leading bool       // somebody commits

	memo memo // of what was read

	// failed hears of every error that is the disk's fault.
	failed func(error)
}

// boltFile is a bbolt file whose panics do not stop others: one while a
// transaction begins or is rolled back leaves bbolt's locks taken, and whoever
// came next would wait for ever.
type boltFile struct {
	*bolt.DB
	file   *os.File
	metas  []byte // a map of the two pages with which every transaction begins
	isRead bool   // as a whole, when it was opened

	mu     sync.Mutex // guards what follows, and lets one transaction begin at a time
	stuck  error      // bbolt's locks are lost
	closed bool
}

// newBoltFile takes over an open file.
func newBoltFile(db *bolt.DB, file *os.File, isRead bool) (*boltFile, error) {
	metas, err := unix.Mmap(int(file.Fd()), 0, 2*db.Info().PageSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map meta pages: %w", err)
	}
	return &boltFile{DB: db, file: file, metas: metas, isRead: isRead}, nil
}

// boltMagic is at byte 16 of each meta page.
const boltMagic = 0xED0CDAED

// look finds a fault of the meta pages before bbolt does, which would find it
// under its locks.
func (b *boltFile) look() error {
	return guarded(func() error {
		size := len(b.metas) / 2
		if binary.NativeEndian.Uint32(b.metas[16:]) != boltMagic && binary.NativeEndian.Uint32(b.metas[size+16:]) != boltMagic {
			return fmt.Errorf("index is %w: no meta page", errDamaged)
		}
		return nil
	})
}

// change is a caller's part of a commit.
type change struct {
	fn   func(tx *bolt.Tx) error
	done chan error
}

// set replaces the file, and closes the one before.
func (d *database) set(db *boltFile, why error) error {
	d.mu.Lock()
	defer d.memo.forget()
	old := d.db
	if d.closed {
		old = db
	} else {
		d.db, d.why = db, why
		if db != nil {
			d.broken = nil
		}
	}
	d.mu.Unlock()
	return old.close()
}

func (d *database) close() error {
	d.mu.Lock()
	db := d.db
	d.db, d.closed = nil, true
	d.mu.Unlock()
	d.memo.forget()
	return db.close()
}

// close waits for the transactions that run. Of one that is stuck only the file
// is closed, with its lock; the memory that it maps stays mapped.
func (b *boltFile) close() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	stuck := b.stuck
	b.closed = true
	b.mu.Unlock()
	err := unix.Munmap(b.metas)
	if stuck != nil {
		// Its map keeps the open file, and that bbolt's lock on it.
		return errors.Join(err, unix.Flock(int(b.file.Fd()), unix.LOCK_UN), b.file.Close())
	}
	if b.IsReadOnly() {
		// bbolt leaves this to the last descriptor, which may be that of a program
		// that is just being started.
		err = errors.Join(err, unix.Flock(int(b.file.Fd()), unix.LOCK_UN))
	}
	return errors.Join(err, guarded(b.Close))
}

// begin begins a transaction. Only one may want to write at a time.
func (b *boltFile) begin(writable bool) (tx *bolt.Tx, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stuck != nil {
		return nil, b.stuck
	}
	if b.closed {
		return nil, bolterrors.ErrDatabaseNotOpen
	}
	if err := b.look(); err != nil {
		return nil, err
	}
	err = guarded(func() error {
		tx, err = b.Begin(writable)
		return err
	})
	if errors.Is(err, errDamaged) {
		b.stuck = err
	}
	return tx, err
}

// rollback ends a transaction, unless its commit did.
func (b *boltFile) rollback(tx *bolt.Tx) {
	if err := guarded(tx.Rollback); errors.Is(err, errDamaged) {
		b.mu.Lock()
		b.stuck = err
		b.mu.Unlock()
	}
}

func (b *boltFile) view(fn func(tx *bolt.Tx) error) error {
	tx, err := b.begin(false)
	if err != nil {
		return err
	}
	defer b.rollback(tx)
	return guarded(func() error { return fn(tx) })
}

func (b *boltFile) update(fn func(tx *bolt.Tx) error) error {
	tx, err := b.begin(true)
	if err != nil {
		return err
	}
	defer b.rollback(tx)
	return guarded(func() error {
		if err := fn(tx); err != nil {
			return err
		}
		return tx.Commit()
	})
}

// isWritable reports whether changes can be made.
func (d *database) isWritable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.db != nil && d.why == nil && d.broken == nil
}

// isBroken reports whether damage was found in the file that was opened last.
func (d *database) isBroken() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.broken != nil
}

// current returns the open file.
func (d *database) current() (*boltFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, errClosed
	case d.db == nil:
		return nil, fmt.Errorf("index is not open: %w: %w", d.why, errdefs.ErrUnavailable)
	}
	return d.db, nil
}

// view runs fn in a transaction that sees one state of the index.
func (d *database) view(fn func(tx *bolt.Tx) error) error {
	db, err := d.current()
	if err == nil {
		err = db.view(fn)
	}
	return d.explain(err)
}

// change runs fn in a transaction, perhaps together with others, so that they
// share one fsync, and perhaps more than once. Who finds nobody at it commits
// for all who have come.
func (d *database) change(fn func(tx *bolt.Tx) error) error {
	c := &change{fn: fn, done: make(chan error, 1)}
	d.queueMu.Lock()
	d.queue = append(d.queue, c)
	leads := !d.leading
	d.leading = true
	d.queueMu.Unlock()
	if leads {
		d.commitQueue()
	}
	err := <-c.done
	d.memo.forget()
	return err
}

// commitQueue commits what waits. What came meanwhile is not for this caller to
// wait for.
func (d *database) commitQueue() {
	d.queueMu.Lock()
	batch := d.queue
	d.queue = nil
	d.leading = len(batch) > 0
	d.queueMu.Unlock()
	if len(batch) == 0 {
		return
	}
	d.commit(batch)
	d.queueMu.Lock()
	more := len(d.queue) > 0
	d.leading = more
	d.queueMu.Unlock()
	if more {
		go d.commitQueue() // ends when nobody waits
	}
}

// commit runs a batch in one transaction. Whoever's part fails is run alone.
func (d *database) commit(batch []*change) {
	for len(batch) > 0 {
		failed := -1
		err := d.update(func(tx *bolt.Tx) error {
			for i, c := range batch {
				if err := c.fn(tx); err != nil {
					failed = i
					return err
				}
			}
			return nil
		})
		if failed < 0 || len(batch) == 1 {
			for _, c := range batch {
				c.done <- err
			}
			return
		}
		c := batch[failed]
		batch = slices.Delete(batch, failed, failed+1)
		c.done <- d.update(c.fn)
	}
}

func (d *database) update(fn func(tx *bolt.Tx) error) error {
	db, err := d.current()
	d.mu.Lock()
	why, broken := d.why, d.broken
	d.mu.Unlock()
	switch {
	case err != nil:
	case broken != nil:
		err = broken
	case why != nil:
		err = fmt.Errorf("index takes no changes: %w: %w", why, errdefs.ErrUnavailable)
	default:
		err = db.update(fn)
	}
	return d.explain(err)
}

// explain gives an error its kind, and tells who has to know.
func (d *database) explain(err error) error {
	if errors.Is(err, errDamaged) {
		d.mu.Lock()
		d.broken = err
		d.mu.Unlock()
	}
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return errClosed
	}
	if err != nil && d.failed != nil && isDiskFailure(err) {
		d.failed(err)
	}
	return err
}

// guarded makes errDamaged of a panic. bbolt trusts its pages: one with wrong
// bytes is a panic, one that the disk cannot read a fault.
func guarded(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }:
			err = fmt.Errorf("index is %w: the disk does not give a page of it", errDamaged)
		default:
			err = fmt.Errorf("index is %w: %v", errDamaged, r)
		}
	}()
	return fn()
}
