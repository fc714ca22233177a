package unpack

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/klauspost/compress/s2"
	"github.com/opencontainers/go-digest"
)

// Copies are layers that are stored a second time, packed with S2, which takes about
// a third more room than gzip and is unpacked four times as fast. A copy is made
// behind the first unpacking of a layer; those used last stay, within a budget. They
// are never needed: what is wrong with a copy has the layer itself be read.
type Copies struct {
	dir    string
	o      CopiesOptions
	wanted chan digest.Digest

	mu    sync.Mutex
	files map[digest.Digest]copyFile // what is there; its files may be taken away by anyone
	total int64                      // bytes of all of them
}

// CopiesOptions are what copies are made of, and how many.
type CopiesOptions struct {
	// Layers has the layers.
	Layers content.Provider
	// Max is what the copies may take on disk, in bytes.
	Max int64
	// Spare says how many bytes of the disk nobody else needs, less than none if it
	// is too full. Copies are the first to go then. nil: it is not looked at.
	Spare func() (int64, error)
	// Logger is told what is wrong with copies. nil: slog.Default.
	Logger *slog.Logger
}

// copyFile is a copy. All that must be known of it is in its name.
type copyFile struct {
	layer digest.Digest
	plain digest.Digest // of the tar stream
	size  int64         // of the tar stream
	bytes int64         // on disk
	used  time.Time
}

const (
	copySuffix = ".s2"
	// unfinished begins the name of a copy that is being written.
	unfinished = "unfinished-"
)

func (f copyFile) name() string {
	return fmt.Sprintf("%s-%s-%d%s", f.layer.Encoded(), f.plain.Encoded(), f.size, copySuffix)
}

// parseCopy reads a name.
func parseCopy(name string) (f copyFile, ok bool) {
	parts := strings.Split(strings.TrimSuffix(name, copySuffix), "-")
	if len(parts) != 3 || !strings.HasSuffix(name, copySuffix) {
		return f, false
	}
	f.layer, f.plain = digest.NewDigestFromEncoded(digest.SHA256, parts[0]), digest.NewDigestFromEncoded(digest.SHA256, parts[1])
	var err error
	f.size, err = strconv.ParseInt(parts[2], 10, 64)
	return f, err == nil && f.size >= 0 && f.layer.Validate() == nil && f.plain.Validate() == nil && f.name() == name
}

// OpenCopies opens the folder of copies. Run makes them, and the folder when there is
// something to put into it.
func OpenCopies(dir string, o CopiesOptions) (*Copies, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open copies of layers: %w", err)
	}
	c := &Copies{
		dir: dir, o: o,
		wanted: make(chan digest.Digest, 256), files: map[digest.Digest]copyFile{},
	}
	for _, e := range entries {
		f, ok := parseCopy(e.Name())
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && ok && fi.Mode().IsRegular() {
			f.bytes, f.used = fi.Size(), fi.ModTime()
			if other, twice := c.files[f.layer]; twice {
				c.drop(other, errors.New("there are two")) // one at least is wrong
			}
			c.files[f.layer] = f
			c.total += f.bytes
			continue
		}
		if strings.HasPrefix(e.Name(), unfinished) { // its maker was killed
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
		if err != nil { // no reason not to run
			o.Logger.Warn("something stays among the copies of layers", "err", err)
		}
	}
	c.shrink(o.Max)
	return c, nil
}

// want has a copy be made of a layer, when there is time.
func (c *Copies) want(layer digest.Digest) {
	if layer.Algorithm() != digest.SHA256 || c.has(layer) {
		return
	}
	select {
	case c.wanted <- layer:
	default: // another time
	}
}

func (c *Copies) has(layer digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.files[layer]
	return ok
}

// Usage says how many copies there are, and what they take, in bytes.
func (c *Copies) Usage() (copies int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.files), c.total
}

// open returns a layer's copy, if there is one.
func (c *Copies) open(layer digest.Digest) *openCopy {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.files[layer]
	if !ok {
		return nil
	}
	file, err := os.Open(filepath.Join(c.dir, f.name()))
	if err != nil {
		c.drop(f, err)
		return nil
	}
	c.o.Logger.Debug("layer is read from its copy", "digest", layer)
	f.used = time.Now()
	c.files[layer] = f
	_ = os.Chtimes(file.Name(), time.Time{}, f.used) // who was used last is a matter of speed only
	return &openCopy{copyFile: f, copies: c, file: file, in: s2.NewReader(file)}
}

// drop takes a copy away that is of no use. c.mu is held.
func (c *Copies) drop(f copyFile, why error) {
	if _, ok := c.files[f.layer]; ok {
		delete(c.files, f.layer)
		c.total -= f.bytes
	}
	err := os.Remove(filepath.Join(c.dir, f.name()))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if why = errors.Join(why, err); why != nil {
		c.o.Logger.Warn("copy of a layer is of no use and is taken away", "digest", f.layer, "err", why)
	}
}

// shrink takes away those used least lately, until the others take no more than max
// bytes.
func (c *Copies) shrink(max int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	oldest := slices.SortedFunc(maps.Values(c.files), func(a, b copyFile) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.layer, b.layer))
	})
	for _, f := range oldest {
		if c.total <= max {
			return
		}
		c.drop(f, nil)
	}
}

// relent makes room for others, if the disk is too full.
func (c *Copies) relent() {
	spare, err := c.spare()
	if err != nil {
		c.o.Logger.Warn("it cannot be told how full the disk is", "path", c.dir, "err", err)
		return
	}
	if spare >= 0 {
		return
	}
	c.mu.Lock()
	keep := max(0, c.total+spare)
	c.mu.Unlock()
	c.shrink(keep)
}

func (c *Copies) spare() (int64, error) {
	if c.o.Spare == nil {
		return math.MaxInt64, nil
	}
	return c.o.Spare()
}

// openCopy is a copy that is read.
type openCopy struct {
	copyFile
	copies *Copies
	file   *os.File
	in     *s2.Reader
	off    int64
}

// Read gives verified bytes only: S2 has a checksum for each of its blocks.
func (o *openCopy) Read(p []byte) (int, error) {
	n, err := o.in.Read(p)
	o.off += int64(n)
	switch {
	case o.off > o.size:
		o.off -= int64(n) // it gave none of them
		return 0, fmt.Errorf("copy has more than %d bytes", o.size)
	case errors.Is(err, io.EOF) && o.off < o.size:
		return n, fmt.Errorf("copy has %d of %d bytes: %w", o.off, o.size, io.ErrUnexpectedEOF)
	}
	return n, err
}

func (o *openCopy) Close() error { return o.file.Close() }

// spoiled takes the copy away, whatever is wrong with it.
func (o *openCopy) spoiled(why error) {
	o.copies.mu.Lock()
	defer o.copies.mu.Unlock()
	o.copies.drop(o.copyFile, why)
}
