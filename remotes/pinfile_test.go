package remotes

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
)

// pinFile makes a pin file and opens it.
func pinFile(t *testing.T, text string) *PinFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pins")
	writePins(t, path, text)
	f, err := OpenPinFile(path, Names{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// writePins replaces a file as it should be done.
func writePins(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestPinFile reads lines of all kinds.
func TestPinFile(t *testing.T) {
	t.Parallel()
	f := pinFile(t, "# what the node needs\n\nnginx # web\r\n\tquay.io/a/*  \nregistry.k8s.io/pause:3.10 #\nnginx:latest # again\n"+
		"sha256:"+strings.Repeat("a", 64)+" # a # b")
	pins, problem := f.Pins()
	var got []string
	for _, p := range pins {
		got = append(got, p.Name+"|"+p.Reason)
		if time.Since(p.Created) > time.Minute {
			t.Errorf("%s is of %v, want the file's time", p.Name, p.Created)
		}
	}
	want := []string{"docker.io/library/nginx:latest|web", "quay.io/a/*|", "registry.k8s.io/pause:3.10|", "sha256:" + strings.Repeat("a", 64) + "|a # b"}
	if !slices.Equal(got, want) || problem != nil {
		t.Errorf("got %q, %v, want %q", got, problem, want)
	}
}

// TestPinFileErrors: each wrong line is told with file and number.
func TestPinFileErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "pins")
	writePins(t, path, "nginx\na b\n# c d\nsha256:abc # short\na?*\nnginx # \x1b[2J\n")
	_, err := OpenPinFile(path, Names{})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v, want an invalid argument", err)
	}
	mentions(t, err, path+`:2: reference "a b"`, path+`:4: digest "sha256:abc"`, path+":5: pattern", path+":6: reason")
	writePins(t, path, strings.Repeat("a b\n", 1000))
	if _, err = OpenPinFile(path, Names{}); strings.Count(err.Error(), "\n") != maxPinProblems {
		t.Errorf("a thousand wrong lines make an error of %d", strings.Count(err.Error(), "\n"))
	}
	mentions(t, err, "and more")
	writePins(t, path, strings.Repeat("#", maxPinFile+1))
	_, err = OpenPinFile(path, Names{})
	mentions(t, err, "no list of pins")
	_, err = OpenPinFile(filepath.Join(dir, "none"), Names{})
	mentions(t, err, "none: no such file")
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = OpenPinFile(fifo, Names{})
	mentions(t, err, "not a regular file")
}

// fileBench is a Registry with a pin file, and what it logs.
func fileBench(t *testing.T, text string) (*Registry, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	store, err := cache.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return NewRegistry(Config{Store: store, PinFile: pinFile(t, text), Logger: slog.New(slog.NewTextHandler(log, nil))}), log
}

func (r *Registry) wantFilePins(t *testing.T, want ...string) {
	t.Helper()
	pins, err := r.Store.Pins()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range pins {
		got = append(got, p.Owner+" "+p.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("pins are %v, want %v", got, want)
	}
}

// TestPinFileIsReadAgain: a change holds, a broken file or none does not, and
// the log is told once.
func TestPinFileIsReadAgain(t *testing.T) {
	t.Parallel()
	r, log := fileBench(t, "quay.io/a/b:1\n")
	path := r.PinFile.Path()
	r.wantFilePins(t, "file quay.io/a/b:1")
	writePins(t, path, "quay.io/a/b:2\n") // of the same size
	r.refreshPins()
	r.wantFilePins(t, "file quay.io/a/b:2")
	// Written over in place, within the file system's unit of time: it looks
	// the same.
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("quay.io/a/b:3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	r.refreshPins()
	r.wantFilePins(t, "file quay.io/a/b:3")
	for what, breakIt := range map[string]func(){
		"a wrong line": func() { writePins(t, path, "quay.io/a/b:4\nx y\n") },
		"no file":      func() { os.Remove(path) },
	} {
		log.Reset()
		breakIt()
		r.refreshPins()
		r.refreshPins()
		r.wantFilePins(t, "file quay.io/a/b:3")
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
			t.Errorf("%s: the log is told %d times, want once:\n%s", what, n, log)
		}
		if _, problem := r.PinFile.Pins(); problem == nil {
			t.Errorf("%s: no problem", what)
		}
	}
	log.Reset()
	writePins(t, path, "*\n")
	r.refreshPins()
	r.wantFilePins(t, "file *")
	if _, problem := r.PinFile.Pins(); problem != nil {
		t.Errorf("whole again, and still: %v", problem)
	}
	if !strings.Contains(log.String(), "keeps everything") {
		t.Errorf("nothing is said of a pin of everything:\n%s", log)
	}
	writePins(t, path, "")
	r.refreshPins()
	r.wantFilePins(t)
}

// TestPinFileIsLeftAlone: one that did not change is not read.
func TestPinFileIsLeftAlone(t *testing.T) {
	t.Parallel()
	r, log := fileBench(t, "quay.io/a/b:1\n")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(r.PinFile.Path(), old, old); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		r.refreshPins()
	}
	if n := strings.Count(log.String(), "pin file read"); n != 1 {
		t.Errorf("read %d times, want once for the new time:\n%s", n, log)
	}
}

// TestPinFileIsWatched: a change holds within a minute though nobody asks, and a
// file that stays broken is told of once an hour.
func TestPinFileIsWatched(t *testing.T) {
	t.Parallel()
	r, log := fileBench(t, "quay.io/a/b:1\n")
	synctest.Test(t, func(t *testing.T) {
		go r.watchPins(t.Context())
		writePins(t, r.PinFile.Path(), "quay.io/a/b:2\n")
		<-time.After(pinFileInterval + time.Second)
		synctest.Wait()
		r.wantFilePins(t, "file quay.io/a/b:2")
		os.Remove(r.PinFile.Path())
		<-time.After(150 * time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "level=ERROR"); n != 3 {
			t.Errorf("the log is told %d times in two and a half hours, want 3:\n%s", n, log)
		}
	})
}
