package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func withRef(ref string) content.WriterOpt { return content.WithRef(ref) }

// planted is what somebody may put in a blob's place.
func planted(t *testing.T) map[string]func(path string) error {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if text, err := os.ReadFile(secret); err != nil || string(text) != "secret" {
			t.Errorf("file that a link leads to is %q, %v, want it untouched", text, err)
		}
	})
	return map[string]func(path string) error{
		"link":          func(path string) error { return os.Symlink(secret, path) },
		"dangling link": func(path string) error { return os.Symlink(secret+"x", path) },
		"fifo":          func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"socket":        plantSocket,
		"directory": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "x"), nil, 0o600))
		},
	}
}

// plantSocket binds through a short path: a socket's is limited.
func plantSocket(path string) error {
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	short := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	return os.Rename(short, path)
}

// TestPlanted shows that what is no blob is not served, listed or deleted,
// never hangs, and is replaced by the blob, but for a directory.
func TestPlanted(t *testing.T) {
	t.Parallel()
	for name, plant := range planted(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir())
			data, dgst := blobOf(1, 100)
			path := filepath.Join(s.Root(), "blobs", "sha256", dgst.Encoded())
			if err := plant(path); err != nil {
				t.Fatal(err)
			}
			wantNoBlob(t, s, dgst)
			_, openErr := s.Open(dgst)
			_, infoErr := s.Info(t.Context(), dgst)
			_, readErr := s.ReaderAt(t.Context(), ocispec.Descriptor{Digest: dgst})
			_, updateErr := s.Update(t.Context(), content.Info{Digest: dgst})
			for call, err := range map[string]error{
				"open": openErr, "info": infoErr, "reader": readErr, "update": updateErr, "delete": s.Delete(t.Context(), dgst),
			} {
				if !errdefs.IsNotFound(err) {
					t.Errorf("%s: %v, want not found", call, err)
				}
			}
			if got := walk(t, s); len(got) != 0 {
				t.Errorf("walk finds %v", got)
			}
			for kind, err := range map[string]error{
				"fill": startFill(t, s, dgst, -1, scripted(sends(data))).Wait(patience(t)),
				"put":  s.Put(t.Context(), dgst, data, Facts{}),
			} {
				if name != "directory" {
					if err != nil {
						t.Errorf("%s: %v", kind, err)
					}
					continue
				}
				if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), path) {
					t.Errorf("%s: %v, want failed precondition that names the directory", kind, err)
				}
			}
			if name != "directory" {
				wantBlob(t, s, dgst, data)
			}
		})
	}
}

// TestPlantedData has things in the place of an ingest's bytes and notes. They
// are replaced, and not written through.
func TestPlantedData(t *testing.T) {
	t.Parallel()
	for name, plant := range planted(t) {
		for _, part := range []string{"data", "ref", "startedat", "total", "."} {
			t.Run(name+" as "+part, func(t *testing.T) {
				t.Parallel()
				root := t.TempDir()
				s := openStore(t, root)
				data, dgst := blobOf(1, 100)
				leaveIngest(t, s, dgst, data[:50])
				path := filepath.Join(s.ingestPath(fillRef+dgst.String()), part)
				if err := errors.Join(os.RemoveAll(filepath.Clean(path)), plant(filepath.Clean(path))); err != nil {
					t.Fatal(err)
				}
				if _, err := s.ListStatuses(t.Context()); err != nil {
					t.Errorf("list: %v", err)
				}
				if err := startFill(t, s, dgst, -1, scripted(sends(data))).Wait(patience(t)); err != nil {
					t.Error(err)
				}
				wantBlob(t, s, dgst, data)
			})
		}
	}
}

// TestCommit goes through the ends of a writer.
func TestCommit(t *testing.T) {
	t.Parallel()
	data, dgst := blobOf(1, 1000)
	wide := digest.SHA512.FromBytes(data)
	for name, tc := range map[string]struct {
		size     int64
		expected digest.Digest
		want     func(error) bool // nil: published
		as       digest.Digest
	}{
		"all right":       {1000, dgst, nil, dgst},
		"nothing said":    {0, "", nil, dgst},
		"other algorithm": {1000, wide, nil, wide},
		"wrong size":      {999, dgst, errdefs.IsFailedPrecondition, dgst},
		"wrong digest":    {1000, digest.FromString("x"), errdefs.IsFailedPrecondition, dgst},
		"no digest":       {1000, "garbage", errdefs.IsInvalidArgument, dgst},
		"no algorithm":    {1000, "md4:d41d8cd98f00b204e9800998ecf8427e", errdefs.IsInvalidArgument, dgst},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir())
			w, err := s.Writer(t.Context(), withRef("w"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(data); err != nil {
				t.Fatal(err)
			}
			err = w.Commit(t.Context(), tc.size, tc.expected, content.WithLabels(map[string]string{"a": "b"}))
			if _, werr := w.Write(data); !errdefs.IsFailedPrecondition(werr) {
				t.Errorf("write after commit: %v, want failed precondition", werr)
			}
			if tc.want != nil {
				if !tc.want(err) {
					t.Errorf("commit: %v", err)
				}
				wantNoBlob(t, s, tc.as)
				if st, err := s.Status(t.Context(), "w"); err != nil || st.Offset != 1000 {
					t.Errorf("ingest: %+v, %v, want it kept", st, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantBlob(t, s, tc.as, data)
			info, err := s.Info(t.Context(), tc.as)
			if err != nil || info.Labels["a"] != "b" || info.Size != 1000 {
				t.Errorf("info: %+v, %v", info, err)
			}
		})
	}
}

// TestCommitAborted has an ingest aborted below its writer.
func TestCommitAborted(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 1000)
	w, err := s.Writer(t.Context(), withRef("w"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := s.Abort(t.Context(), "w"); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context(), 1000, dgst); err == nil {
		t.Error("commit of an aborted ingest: no error")
	}
	wantNoBlob(t, s, dgst)
	if err := s.Abort(t.Context(), "w"); !errdefs.IsNotFound(err) {
		t.Errorf("second abort: %v, want not found", err)
	}
}

// writeAsNobody opens the store in args[0] without privileges and fills.
func writeAsNobody(ctx context.Context, args []string) error {
	s, err := Open(args[0])
	if err != nil {
		return err
	}
	data, dgst := blobOf(1, 1000)
	ref := fillRef + dgst.String()
	if args[1] == "crash" {
		in, err := s.openIngest(ctx, ref, 0, dgst.Algorithm())
		if err != nil {
			return err
		}
		if _, err := in.Write(data[:500]); err != nil {
			return err
		}
		return in.seal(ctx)
	}
	w, err := s.Writer(ctx, withRef(ref))
	if err != nil {
		return err
	}
	if st, err := w.Status(); err != nil || st.Offset != 500 {
		return fmt.Errorf("status %+v, %w", st, err)
	}
	_, err = io.Copy(w, bytes.NewReader(data[500:]))
	return errors.Join(err, w.Commit(ctx, 0, dgst))
}

// TestUnprivilegedResume crashes between the blob's mode and its rename: a
// daemon that is not root may no longer write to its own file.
func TestUnprivilegedResume(t *testing.T) {
	t.Parallel()
	// Not below t.TempDir, whose parents only root may enter.
	root, err := os.MkdirTemp("", "larder-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	self := filepath.Join(root, "test")
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	syscall.ForkLock.RLock()             // a child of now would hold it open for writing, and it could not be run
	err = os.WriteFile(self, exe, 0o755) //nolint:gosec // run by nobody
	syscall.ForkLock.RUnlock()
	if err := errors.Join(err, os.Mkdir(filepath.Join(root, "store"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"crash", "resume"} {
		cmd := child(t, "downgrade", filepath.Join(root, "store"), part)
		if os.Getuid() == 0 {
			for _, path := range []string{root, filepath.Join(root, "store")} {
				if err := os.Chown(path, 65534, 65534); err != nil {
					t.Fatal(err)
				}
			}
			cmd.Path = self
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: %v", part, err)
		}
	}
}

// namelessDisk does not write down the names in a folder, as long as fails is set.
type namelessDisk struct {
	Disk
	folder string
	fails  *atomic.Bool
}

func (d namelessDisk) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := d.Disk.OpenFile(path, flag, perm)
	if err == nil && path == d.folder {
		return namelessFile{f, d.fails}, nil
	}
	return f, err
}

type namelessFile struct {
	File
	fails *atomic.Bool
}

func (f namelessFile) Sync() error {
	if f.fails.Load() {
		return syscall.EIO
	}
	return f.File.Sync()
}

// TestNameNotOnDisk: a blob whose name is not on disk is nobody's hit, though it can
// be seen: a power cut would take it away. When the disk is well it is there.
func TestNameNotOnDisk(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	var fails atomic.Bool
	s := openStore(t, root, quiet(), WithExposure(testGrace), WithDisk(namelessDisk{OSDisk(), filepath.Join(root, "blobs", "sha256"), &fails}))
	data, _ := blobOf(1, 1000)
	dgst := putExposed(t, s)
	if err := s.Damaged(t.Context(), dgst, errors.New("flipped")); err != nil {
		t.Fatal(err)
	}
	fails.Store(true)
	if err := s.Put(t.Context(), dgst, data, Facts{}); !errors.Is(err, syscall.EIO) {
		t.Fatalf("put: %v, want EIO", err)
	}
	if has, err := s.Has(dgst); has || err != nil {
		t.Errorf("it is there: %t, %v", has, err)
	}
	if _, ok := s.Exposed(dgst); ok {
		t.Error("containerd is told that it is there")
	}
	if err := s.Put(t.Context(), dgst, data, Facts{}); err == nil {
		t.Error("put again: no error, and its name is not on disk")
	}
	if err := s.probe(); !errors.Is(err, syscall.EIO) {
		t.Errorf("probe: %v, want that the disk is not well", err)
	}
	fails.Store(false)
	if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
		t.Error(err)
	}
	wantBlob(t, s, dgst, data)
}
