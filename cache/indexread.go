package cache

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	bolt "go.etcd.io/bbolt"
)

// wholeSize is how many bytes the file has, if that is as many as it says.
func wholeSize(db *bolt.DB) (int64, error) {
	fi, err := os.Stat(db.Path())
	if err != nil {
		return 0, err
	}
	err = db.View(func(tx *bolt.Tx) error {
		if fi.Size() < tx.Size() {
			return fmt.Errorf("%w: has %d bytes, want %d", errDamaged, fi.Size(), tx.Size())
		}
		return nil
	})
	return fi.Size(), err
}

// viewer runs fn in a transaction.
type viewer func(fn func(tx *bolt.Tx) error) error

// readAll touches every page that is in use. It panics, or returns errDamaged,
// if one is damaged.
func readAll(ctx context.Context, view viewer) error {
	var names []string
	err := view(func(tx *bolt.Tx) error {
		names = nil
		return tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
			names = append(names, string(name))
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := readBucket(ctx, view, name); err != nil {
			return err
		}
	}
	return nil
}

// readStep is how many records of a bucket are read in one transaction: a change
// that has the file grow waits for those that run.
const readStep = 1 << 14

func readBucket(ctx context.Context, view viewer, name string) error {
	order := keyOrder{bucket: name}
	for more := true; more; {
		err := view(func(tx *bolt.Tx) error {
			defer dropPages(tx)
			c := tx.Bucket([]byte(name)).Cursor()
			k, _ := c.Seek(order.last) // the first one, if there is none
			if order.last != nil && bytes.Equal(k, order.last) {
				k, _ = c.Next()
			}
			for n := 0; k != nil && n < readStep; n++ {
				if err := order.next(k); err != nil {
					return err
				}
				k, _ = c.Next()
			}
			more = k != nil
			return nil
		})
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkIndex reads in the background what Open did not. Damage is what it is
// when it is found in use: the index is set aside, and begun anew from the
// snapshot, which is not written until all is read.
func (s *Store) checkIndex(ctx context.Context) {
	began := time.Now()
	err := readAll(ctx, s.index.view)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.logger.Error("index is not readable", "err", err)
	default:
		s.index.unread.Store(false)
		s.indexChanged()
		s.logger.Debug("index was read", "dur", time.Since(began))
	}
}

// keyOrder fails a walk with errDamaged if a key does not come behind the one
// before: a page stands in another one's place. No page is wrong in itself, and
// what is missing must not be taken for gone by who deletes, in an index that was
// not read yet.
type keyOrder struct {
	bucket string
	last   []byte // nil before the first
}

func (o *keyOrder) next(k []byte) error {
	if o.last != nil && bytes.Compare(o.last, k) >= 0 {
		return fmt.Errorf("%w: bucket %.20q: keys are out of order", errDamaged, o.bucket)
	}
	o.last = append(o.last[:0], k...) // its page may be dropped
	return nil
}

// inOrder is fn for a walk whose order is looked at.
func inOrder(bucket string, fn func(k, v []byte) error) func(k, v []byte) error {
	order := keyOrder{bucket: bucket}
	return func(k, v []byte) error {
		if err := order.next(k); err != nil {
			return err
		}
		return fn(k, v)
	}
}

// dropEvery is after how many records of a walk its pages are dropped. Each may
// have brought fifteen others with it.
const dropEvery = 1 << 12

// eachRecord calls fn for each record of a bucket, in order, until ctx ends. A
// walk over a large bucket does not leave all of it in this process's memory: what
// the kernel has of the file stays, and is mapped again on use.
func eachRecord(ctx context.Context, tx *bolt.Tx, bucket string, fn func(k, v []byte) error) error {
	n, fn := 0, inOrder(bucket, fn)
	err := tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if n++; n%dropEvery == 0 {
			dropPages(tx)
		}
		return fn(k, v)
	})
	if n >= dropEvery {
		dropPages(tx)
	}
	return err
}

// dropPages does so behind a change, which has read more than it was asked to.
func (x *index) dropPages() {
	_ = x.view(func(tx *bolt.Tx) error { // it is for memory alone
		dropPages(tx)
		return nil
	})
}

// dropPages takes the index out of this process's memory. The transaction keeps
// the mapping where it is.
func dropPages(tx *bolt.Tx) {
	info, size := tx.DB().Info(), tx.Size()
	if info.Data == 0 || size <= 0 {
		return
	}
	// Advice: that it is not taken costs memory and nothing else.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, info.Data, uintptr(size), unix.MADV_DONTNEED)
}
