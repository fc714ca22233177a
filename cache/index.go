package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Buckets of the index. They hold JSON records by name, but where they say so.
const (
	blobsBucket     = "blobs"     // digest -> blobRecord
	tagsBucket      = "tags"      // reference -> Tag
	manifestsBucket = "manifests" // repository@digest -> Link
	pinsBucket      = "pins"      // what is pinned, and by whom -> Pin
	holdersBucket   = "holders"   // digest, repository -> nothing: holders that no blobRecord has
	referrersBucket = "referrers" // repository@digest -> Referrers
	historyBucket   = "history"   // reference -> History
	endedBucket     = "ended"     // end, reference -> nothing: histories of tags that are gone
	damageBucket    = "damage"    // time, digest -> Damage
	stateBucket     = "state"     // what the store itself remembers, by its name
	spaceBucket     = "space"     // see usage
	childrenBucket  = "children"  // digest, binary -> the digests that a manifest names, binary
	gravesBucket    = "graves"    // time -> Grave
	exposedBucket   = "exposed"   // digest -> exposure
)

// index is the part of the store that files cannot say. Every change is one
// bbolt transaction, durable when the call returns.
type index struct {
	database
	// changed is called after each change.
	changed func()
	// unread says that a large file was not read as a whole since it was opened;
	// see checkIndex.
	unread atomic.Bool
}

// readAtOnce is up to which size an index is read as a whole before it is used:
// 30 ms of a start. That of some 30,000 blobs has it.
const readAtOnce = 32 << 20

// change is database's, and tells of it.
func (x *index) change(fn func(tx *bolt.Tx) error) error {
	err := x.database.change(fn)
	if err == nil && x.changed != nil {
		x.changed()
	}
	return err
}

// errDamaged marks an index whose content is wrong, as opposed to one that
// cannot be opened right now, because the disk is full or somebody holds it.
var errDamaged = errors.New("damaged")

// open opens the index, or begins a new one if there is none or it is damaged.
// A damaged one is kept beside the new one. One on a disk that takes no writes
// is opened for reading, and the disk's error returned with it.
func (x *index) open(path string, logger *slog.Logger) error {
	most := int64(readAtOnce)
	if x.isBroken() {
		most = math.MaxInt64 // what was found must be found here, too
	}
	db, err := openBolt(path, false, most)
	if errors.Is(err, errDamaged) {
		aside := damagedPath(path)
		logger.Warn("index is damaged and is begun anew", "err", err, "kept", aside)
		if rerr := os.Rename(path, aside); rerr != nil {
			return fmt.Errorf("index %s: %w; set aside: %w", path, err, rerr)
		}
		db, err = openBolt(path, false, most)
	}
	if errors.Is(err, syscall.EROFS) {
		if readable, rerr := openBolt(path, true, most); rerr == nil {
			db = readable
		}
	}
	if err != nil {
		err = fmt.Errorf("index %s: %w", path, err)
	}
	x.unread.Store(db != nil && !db.isRead)
	return errors.Join(err, x.set(db, err))
}

// damagedPath is where a file goes that is set aside for a person to look at.
func damagedPath(path string) string {
	return path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000")
}

// openBolt opens the file, and reads all of it once if it has most bytes at most.
// bbolt trusts its pages: a damage that is not found here is a panic or a SIGBUS
// later on.
func openBolt(path string, readOnly bool, most int64) (_ *boltFile, err error) {
	var db *bolt.DB
	var file *os.File
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
		switch {
		case err != nil && db != nil:
			err = errors.Join(err, db.Close())
		case err != nil && file != nil:
			_ = file.Close() // with its lock; bbolt did so unless it panicked
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
	db, err = bolt.Open(path, 0o600, &bolt.Options{
		Timeout: time.Second, FreelistType: bolt.FreelistMapType, ReadOnly: readOnly,
		OpenFile: func(path string, flag int, perm os.FileMode) (_ *os.File, err error) {
			file, err = os.OpenFile(path, flag, perm)
			return file, err
		},
	})
	if err != nil {
		// What the system says, "no space left" for instance, is no damage:
		// the index must not be thrown away for it.
		if errors.As(err, new(syscall.Errno)) || errors.Is(err, bolterrors.ErrTimeout) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	size, err := wholeSize(db)
	if err != nil {
		return nil, err
	}
	if size <= most {
		if err := readAll(context.Background(), db.View); err != nil {
			return nil, err
		}
	}
	if !readOnly {
		if err := makeBuckets(db); err != nil {
			return nil, err
		}
	}
	return newBoltFile(db, file, size <= most)
}

func makeBuckets(db *bolt.DB) error {
	names := []string{blobsBucket, tagsBucket, manifestsBucket, pinsBucket, holdersBucket, referrersBucket, historyBucket, endedBucket,
		damageBucket, stateBucket, spaceBucket, childrenBucket, gravesBucket, exposedBucket}
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
		isNew := tx.Bucket([]byte(tagsBucket)) == nil // an older larder's has some of them
		for _, name := range names {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		if isNew {
			return putRecord(tx, stateBucket, newKey, true)
		}
		return nil
	})
}

// get decodes a record, or returns errdefs.ErrNotFound. A record that does
// not decode is as good as none.
func (x *index) get(bucket, key string, v any) error {
	_, err := x.getSized(bucket, key, v)
	return err
}

// getSized is get, and says how many bytes the record has in the index.
func (x *index) getSized(bucket, key string, v any) (size int, err error) {
	err = x.view(func(tx *bolt.Tx) error {
		data := recordIn(tx, bucket, key)
		if data == nil || json.Unmarshal(data, v) != nil {
			return fmt.Errorf("%s: %s: %w", bucket, key, errdefs.ErrNotFound)
		}
		size = len(data)
		return nil
	})
	return size, err
}

func (x *index) put(bucket, key string, v any) error {
	return x.change(func(tx *bolt.Tx) error { return putRecord(tx, bucket, key, v) })
}

// recordIn returns a record as it is, nil if there is none. An older larder's
// index that can only be read lacks buckets.
func recordIn(tx *bolt.Tx, bucket, key string) []byte {
	if b := tx.Bucket([]byte(bucket)); b != nil {
		return b.Get([]byte(key))
	}
	return nil
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
		b := tx.Bucket([]byte(bucket))
		if b == nil {
			return nil // as in recordIn
		}
		return b.ForEach(inOrder(bucket, func(k, v []byte) error { return fn(string(k), v) }))
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
