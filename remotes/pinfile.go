package remotes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
)

const (
	// pinFileInterval is how often a pin file is looked at while nobody asks.
	pinFileInterval = time.Minute
	// maxPinFile bounds a pin file in bytes: ten thousand lines are less.
	maxPinFile = 1 << 20
	// maxPinProblems bounds the lines that one error tells of.
	maxPinProblems = 10
	// clockStep is more than any file system's unit of time. A file that changed
	// less than this before it was read may have changed again since, and look
	// the same.
	clockStep = 2 * time.Second
	// remindAfter is how often the log is told of a file that stays broken.
	remindAfter = time.Hour
)

// PinFile is a file of pins that others write: a reference, digest or pattern a
// line, perhaps with "# reason" behind it. Empty lines, and those that begin with
// #, are passed over. It is read again when it changed; while it is broken or
// gone, what it held before goes on to hold. Replace it by a rename: a file that
// is read while it is written is shorter than it should be.
type PinFile struct {
	path  string
	names Names

	mu      sync.Mutex  // guards what follows; held while the file is read
	seen    fs.FileInfo // of the file that was read last; nil: none could be
	readAt  time.Time
	pins    []cache.Pin // of the last whole file
	problem error       // why the last one is not whole
	told    time.Time   // when the log was told of it
}

// OpenPinFile reads a pin file. All lines that are wrong are told, each with its
// number, as errdefs.ErrInvalidArgument.
func OpenPinFile(path string, names Names) (*PinFile, error) {
	f := &PinFile{path: path, names: names}
	var err error
	f.pins, err = f.read()
	return f, err
}

// Path returns the file's path.
func (f *PinFile) Path() string { return f.path }

// Pins returns what the file held when it was last whole, and why it is not so
// now.
func (f *PinFile) Pins() (pins []cache.Pin, problem error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pins, f.problem
}

// update reads the file if it changed, and calls set if it is whole. set is
// called by one update at a time.
func (f *PinFile) update(logger *slog.Logger, set func([]cache.Pin)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.isUnchanged() {
		f.tell(logger, f.problem)
		return
	}
	pins, err := f.read()
	f.tell(logger, err)
	if f.problem = err; err != nil {
		return
	}
	f.pins = pins
	set(pins)
	logger.Info("pin file read", "file", f.path, "pins", len(pins))
	for _, p := range pins {
		if PinsEverything(p.Name) {
			logger.Warn("a pin keeps everything: nothing can be removed", "file", f.path, "pin", p.Name)
		}
	}
}

// tell logs a problem when it is new, and again once an hour.
func (f *PinFile) tell(logger *slog.Logger, problem error) {
	isNew := problem != nil && (f.problem == nil || f.problem.Error() != problem.Error())
	if problem == nil || !isNew && time.Since(f.told) < remindAfter {
		return
	}
	f.told = time.Now()
	logger.Error("pin file is broken: what it held before still holds, changes do not; mend it", "file", f.path, "err", problem)
}

// isUnchanged reports whether the file is the one that was read last.
func (f *PinFile) isUnchanged() bool {
	info, err := os.Stat(f.path)
	return err == nil && f.seen != nil && os.SameFile(info, f.seen) && info.Size() == f.seen.Size() &&
		info.ModTime().Equal(f.seen.ModTime()) && f.readAt.Sub(info.ModTime()) >= clockStep
}

// read reads the file, whatever was read before, and remembers which it was.
func (f *PinFile) read() ([]cache.Pin, error) {
	f.seen = nil
	file, err := openRegular(f.path)
	if err != nil {
		return nil, err // names the file
	}
	defer file.Close()
	f.readAt = time.Now()
	info, err := file.Stat()
	if err != nil {
		return nil, err // names the file
	}
	text, err := io.ReadAll(io.LimitReader(file, maxPinFile+1))
	if err != nil {
		return nil, err // names the file
	}
	f.seen = info
	if len(text) > maxPinFile {
		return nil, fmt.Errorf("%s: larger than %d bytes, this is no list of pins: %w", f.path, maxPinFile, errdefs.ErrInvalidArgument)
	}
	pins, err := parsePins(f.path, string(text), f.names.PinName)
	for i := range pins {
		pins[i].Created = info.ModTime()
	}
	return pins, err
}

// openRegular opens a regular file: to open a fifo would hang.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is not a regular file: %w", path, errdefs.ErrInvalidArgument)
	}
	return os.Open(path)
}

// parsePins reads the text of a pin file. What is pinned twice counts once.
func parsePins(path, text string, name func(string) (string, error)) ([]cache.Pin, error) {
	var pins []cache.Pin
	var problems []error
	seen := map[string]bool{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		what, reason, _ := strings.Cut(line, "#")
		p := cache.Pin{Name: strings.TrimSpace(what), Reason: strings.TrimSpace(reason)}
		if p.Name == "" {
			continue
		}
		known, err := name(p.Name)
		if err = errors.Join(err, CheckPinReason(p.Reason)); err != nil {
			if len(problems) == maxPinProblems {
				problems = append(problems, fmt.Errorf("%s: and more", path))
				break
			}
			problems = append(problems, fmt.Errorf("%s:%d: %w", path, number, err))
			continue
		}
		if p.Name = known; !seen[known] {
			seen[known] = true
			pins = append(pins, p)
		}
	}
	return pins, errors.Join(problems...)
}

// refreshPins reads the pin file again if it changed.
func (r *Registry) refreshPins() {
	if r.PinFile != nil {
		r.PinFile.update(r.Logger, func(pins []cache.Pin) { r.Store.SetPins(cache.PinOwnerFile, pins) })
	}
}

// watchPins does so once a minute, until ctx ends.
func (r *Registry) watchPins(ctx context.Context) {
	if r.PinFile == nil {
		return
	}
	tick := time.NewTicker(pinFileInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.refreshPins()
		case <-ctx.Done():
			return
		}
	}
}
