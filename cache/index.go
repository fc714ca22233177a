package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Buckets of the index. Each holds JSON records by name.
const (
	blobsBucket     = "blobs"     // digest -> Facts
	tagsBucket      = "tags"      // reference -> Tag
	manifestsBucket = "manifests" // repository@digest -> Link
	pinsBucket      = "pins"      // reference or digest -> Pin
	holdersBucket   = "holders"   // digest, repository -> Holder
	referrersBucket = "referrers" // repository@digest -> Referrers
)

// batchDelay is how long a change waits for others that share its fsync. It
// is about what an fsync takes: more would only make each change slower.
const batchDelay = time.Millisecond

// index is the part of the store that files cannot say. Every change is one
// bbolt transaction, durable when the call returns.
type index struct {
	db *bolt.DB
}

// errDamaged marks an index whose content is wrong, as opposed to one that
// cannot be opened right now, because the disk is full or somebody holds it.
var errDamaged = errors.New("damaged")

// openIndex opens the index, or begins a new one if there is none or it is
// damaged. A damaged one is kept beside the new one.
func openIndex(path string, logger *slog.Logger) (*index, error) {
	db, err := openBolt(path)
	if errors.Is(err, errDamaged) {
		aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000")
		logger.Warn("index is damaged and is begun anew: tags and pins are lost, blobs are not", "err", err, "kept", aside)
		if rerr := os.Rename(path, aside); rerr != nil {
			return nil, fmt.Errorf("index %s: %w; set aside: %w", path, err, rerr)
		}
		db, err = openBolt(path)
	}
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", path, err)
	}
	return &index{db: db}, nil
}

// openBolt opens the file and reads all of it once. bbolt trusts its pages: a
// damage that is not found here would be a panic or a SIGBUS later on.
func openBolt(path string) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
		if err != nil && db != nil {
			err = errors.Join(err, db.Close())
			db = nil
		}
	}()
	fi, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil && !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: is a %s", errDamaged, fi.Mode().Type())
	}
	// The store's lock already keeps others out; the timeout is for a holder
	// that ignores it, such as a person with a bbolt tool.
	db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType})
	if err != nil {
		// What the system says, "no space left" for instance, is no damage:
		// the index must not be thrown away for it.
		if errors.As(err, new(syscall.Errno)) || errors.Is(err, bolterrors.ErrTimeout) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	db.MaxBatchDelay = batchDelay
	if err := readAll(db); err != nil {
		return db, err
	}
	return db, makeBuckets(db)
}

// readAll touches every page that is in use.
func readAll(db *bolt.DB) error {
	fi, err := os.Stat(db.Path())
	if err != nil {
		return err
	}
	return db.View(func(tx *bolt.Tx) error {
		if fi.Size() < tx.Size() {
			return fmt.Errorf("%w: has %d bytes, want %d", errDamaged, fi.Size(), tx.Size())
		}
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			var last []byte
			return b.ForEach(func(k, _ []byte) error {
				if last != nil && string(last) >= string(k) {
					return fmt.Errorf("%w: bucket %.20q: keys are out of order", errDamaged, name)
				}
				last = k
				return nil
			})
		})
	})
}

func makeBuckets(db *bolt.DB) error {
	names := []string{blobsBucket, tagsBucket, manifestsBucket, pinsBucket, holdersBucket, referrersBucket}
	missing := false
	err := db.View(func(tx *bolt.Tx) error {
		for _, name := range names {
			missing = missing || tx.Bucket([]byte(name)) == nil
		}
		return nil
	})
	if err != nil || !missing {
		return err // a full disk stops no start: nothing is written
	}
	return db.Update(func(tx *bolt.Tx) error {
		for _, name := range names {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (x *index) close() error { return x.db.Close() }

// view runs fn in a transaction that sees one state of the index.
func (x *index) view(fn func(tx *bolt.Tx) error) error { return indexError(x.db.View(fn)) }

// change runs fn in a transaction, perhaps together with others, so that they
// share one fsync, and perhaps more than once.
func (x *index) change(fn func(tx *bolt.Tx) error) error { return indexError(x.db.Batch(fn)) }

func indexError(err error) error {
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return errClosed
	}
	return err
}

// get decodes a record, or returns errdefs.ErrNotFound. A record that does
// not decode is as good as none.
func (x *index) get(bucket, key string, v any) error {
	return x.view(func(tx *bolt.Tx) error {
		data := tx.Bucket([]byte(bucket)).Get([]byte(key))
		if data == nil || json.Unmarshal(data, v) != nil {
			return fmt.Errorf("%s: %s: %w", bucket, key, errdefs.ErrNotFound)
		}
		return nil
	})
}

func (x *index) put(bucket, key string, v any) error {
	return x.change(func(tx *bolt.Tx) error { return putRecord(tx, bucket, key, v) })
}

func putRecord(tx *bolt.Tx, bucket, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s record %s: %w", bucket, key, err)
	}
	return tx.Bucket([]byte(bucket)).Put([]byte(key), data)
}

func (x *index) delete(bucket, key string) error {
	return x.change(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucket)).Delete([]byte(key))
	})
}

// walk calls fn for each record of a bucket, in key order, within one view.
// fn must not change the index.
func (x *index) walk(bucket string, fn func(key string, data []byte) error) error {
	return x.view(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error { return fn(string(k), v) })
	})
}

// eachBelow calls fn with all entries of a bucket whose key begins with prefix,
// in order. fn must not change the bucket, nor keep what it is given.
func eachBelow(tx *bolt.Tx, bucket, prefix string, fn func(key, data []byte) error) error {
	cursor := tx.Bucket([]byte(bucket)).Cursor()
	for k, v := cursor.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = cursor.Next() {
		if err := fn(k, v); err != nil {
			return err
		}
	}
	return nil
}
