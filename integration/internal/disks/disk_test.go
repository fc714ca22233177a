package disks

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// put writes a file; sync makes it durable, its folder included.
func put(t *testing.T, path string, data []byte, sync bool) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if !sync {
		return
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := errors.Join(f.Sync(), dir.Sync()); err != nil {
		t.Fatal(err)
	}
}

func TestPowerCutDropsUnsynced(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("larder"), 30_000)
	for _, kind := range Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			d := New(t, Options{Kind: kind})
			kept, lost := filepath.Join(d.Path, "kept"), filepath.Join(d.Path, "lost")
			put(t, kept, data, true)
			put(t, lost, data, false)
			d.Cut()
			if _, err := os.Create(filepath.Join(d.Path, "more")); !errors.Is(err, syscall.EIO) {
				t.Errorf("after the cut: %v, want EIO", err)
			}
			d.Revive()
			if got, err := os.ReadFile(kept); err != nil || !bytes.Equal(got, data) {
				t.Errorf("synced file: %d bytes, %v; want all %d", len(got), err, len(data))
			}
			if got, _ := os.ReadFile(lost); len(got) != 0 {
				t.Errorf("unsynced file has %d bytes: the cut cuts nothing", len(got))
			}
			d.Check()
		})
	}
}

func TestFill(t *testing.T) {
	t.Parallel()
	for _, kind := range Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			d := New(t, Options{Kind: kind})
			before, _ := d.Free()
			d.Fill(1 << 20)
			if free, _ := d.Free(); free > 1<<20+64<<10 || free < 512<<10 {
				t.Errorf("%d bytes free, want about 1 MiB", free)
			}
			d.Fill(0)
			if err := os.WriteFile(filepath.Join(d.Path, "more"), make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("write: %v, want ENOSPC", err)
			}
			f, err := os.Open(filepath.Join(d.Path, "ballast")) // as a process that was just forked may
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			d.Empty()
			if free, _ := d.Free(); free < before-2<<20 {
				t.Errorf("%d bytes free, %d before", free, before)
			}
		})
	}
}

func TestFillInodes(t *testing.T) {
	t.Parallel()
	d := New(t, Options{Kind: Ext4, Inodes: 64})
	d.FillInodes(0)
	if _, err := os.Create(filepath.Join(d.Path, "more")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("create: %v, want ENOSPC", err)
	}
	d.EmptyInodes()
	put(t, filepath.Join(d.Path, "more"), nil, true)
}

func TestBreakReadOnly(t *testing.T) {
	t.Parallel()
	d := New(t, Options{Kind: Ext4})
	f, err := os.Create(filepath.Join(d.Path, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d.BreakReadOnly()
	if _, err := os.Create(filepath.Join(d.Path, "more")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("create: %v, want EROFS", err)
	}
}

func TestImmutable(t *testing.T) {
	t.Parallel()
	d := New(t, Options{Kind: Ext4})
	for _, on := range []bool{true, false} {
		if err := Immutable(d.Path, on); err != nil {
			t.Fatal(err)
		}
		err := os.WriteFile(filepath.Join(d.Path, "more"), nil, 0o600)
		if errors.Is(err, syscall.EPERM) != on {
			t.Errorf("immutable %t: %v", on, err)
		}
	}
}

// A disk that is detached while a file of it is open lives on for that file.
func TestDetach(t *testing.T) {
	t.Parallel()
	d := New(t, Options{Kind: XFS})
	path := filepath.Join(d.Path, "open")
	put(t, path, []byte("x"), true)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	d.Detach()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat: %v, want none", err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); err != nil {
		t.Errorf("open file: %v", err)
	}
	f.Close()
	d.Mount()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// A test that fails in the middle leaves nothing.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	var d *Disk
	t.Run("with a disk", func(t *testing.T) {
		d = New(t, Options{Kind: Ext4, Backing: NewDrive(t, 64<<20).File()})
		if len(Leftovers(d.Path)) != 1 || len(Leftovers(d.o.Backing)) != 1 {
			t.Errorf("of a disk that is there: mounts %q, loop devices %q", Leftovers(d.Path), Leftovers(d.o.Backing))
		}
		d.Cut()
	})
	if left := Leftovers(filepath.Dir(d.Path)); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if left := Leftovers(filepath.Dir(d.o.Backing)); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestInject(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	// It makes a folder for each line it is sent, and says how that went.
	cmd := exec.CommandContext(ctx, "sh", "-c", `while read name; do mkdir "$0/$name" 2>/dev/null && echo yes || echo no; done`, dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	try := func(name string) string {
		if _, err := in.Write([]byte(name + "\n")); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 4)
		n, err := out.Read(answer)
		if err != nil {
			t.Fatal(err)
		}
		return string(bytes.TrimSpace(answer[:n]))
	}
	inject := Inject(t, cmd.Process.Pid, "mkdir:error=EROFS")
	if got := try("a"); got != "no" || inject.Hits() != 1 {
		t.Errorf("while injected: %s, %d hits", got, inject.Hits())
	}
	inject.Stop()
	if got := try("b"); got != "yes" {
		t.Errorf("afterwards: %s", got)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestHeld: a process that has a copy of the mounts keeps a file system alive, and
// who revives or checks a disk waits for it.
func TestHeld(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(*Disk){
		"revive": func(d *Disk) {
			d.Cut()
			d.Revive()
		},
		"check": func(d *Disk) { d.Check() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := New(t, Options{Kind: XFS})
			letGo := holdMounts(t)
			write := func() {
				f, err := os.Create(filepath.Join(disk.Path, "file"))
				if err != nil {
					t.Error(err)
					return
				}
				_, err = f.Write(make([]byte, 1<<20))
				if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
					t.Error(err)
				}
			}
			write()
			time.AfterFunc(200*time.Millisecond, letGo)
			use(disk)
			write()
		})
	}
}

// holdMounts begins a process that has a copy of all mounts until it is let go.
func holdMounts(t *testing.T) (letGo func()) {
	t.Helper()
	holder := exec.CommandContext(context.WithoutCancel(t.Context()), "unshare", "--mount", "--propagation", "private", "cat")
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := holder.Wait(); err != nil {
			t.Error(err)
		}
	})
	if _, err := in.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return func() { _ = in.Close() }
}
