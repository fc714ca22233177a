package doctor

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/plugin/hosts"
)

func deviceOf(t *testing.T, info fs.FileInfo) uint64 {
	t.Helper()
	return info.Sys().(*syscall.Stat_t).Dev
}

// store is one that a daemon has made and closed.
func store(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "store")
	s, err := cache.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return root
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFolder(t *testing.T) {
	t.Parallel()
	root := store(t)
	if os.Getuid() == 0 {
		expect(t, "as larder makes it", Folder(root), OK, "root's alone")
	}
	expect(t, "absent", Folder(filepath.Join(root, "absent")), Warning, "does not exist yet")
	expect(t, "a file", Folder(write(t, filepath.Join(t.TempDir(), "file"), "")), Problem, "not a folder")
	for mode, want := range map[fs.FileMode]Status{0o755: Warning, 0o750: Warning, 0o770: Problem, 0o702: Problem} {
		if err := os.Chmod(root, mode); err != nil {
			t.Fatal(err)
		}
		if got := Folder(root); len(got) == 0 || got[len(got)-1].Status != want {
			t.Errorf("mode %#o: got %+v, want %s", mode, got, want)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("only root can give a folder away")
	}
	if err := os.Chmod(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(root, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	expect(t, "of another user", Folder(root), Warning, "belongs to user 65534")
}

func TestFormat(t *testing.T) {
	t.Parallel()
	root := store(t)
	expect(t, "as larder makes it", []Result{Format(root)}, OK, fmt.Sprint(cache.FormatVersion))
	for text, found := range map[string]string{
		fmt.Sprintf(`{"format":%d}`, cache.FormatVersion+1): "knows up to", `{"form`: "larder.json", `{}`: "want 1 or more",
	} {
		write(t, filepath.Join(root, "larder.json"), text)
		expect(t, text, []Result{Format(root)}, Problem, found)
	}
	expect(t, "no store", []Result{Format(t.TempDir())}, OK, "none yet")
}

func TestTimes(t *testing.T) {
	t.Parallel()
	root := store(t)
	now := time.Now()
	expect(t, "now", []Result{Times(root, now)}, OK, "nothing in the store is later")
	for _, dir := range []string{"", "blobs/sha256", "ingest"} {
		file := write(t, filepath.Join(root, dir, "late"), "")
		if err := os.Chtimes(file, now, now.Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
		expect(t, "in "+dir, []Result{Times(root, now)}, Warning, file+" is from")
		expect(t, "two hours on", []Result{Times(root, now.Add(2*time.Hour))}, OK, "")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, "in 1970", []Result{Times(root, time.Unix(0, 0))}, Problem, "1970")
	expect(t, "no store", []Result{Times(filepath.Join(root, "absent"), now)}, OK, "no store to compare")
}

// The limit is read of another process, as the daemon is one.
func TestDaemonFiles(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close() // cat ends with its input
		_ = cmd.Wait()
	})
	for limit, want := range map[uint64]Status{4096: OK, 256: Warning} {
		if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: 4096}, nil); err != nil {
			t.Fatal(err)
		}
		expect(t, "a process", []Result{DaemonFiles(cmd.Process.Pid)}, want, fmt.Sprintf("the daemon may open %d", limit))
	}
	if n, ok := maxOpenFiles("Max open files            unlimited            unlimited            files\n"); !ok || n != unix.RLIM_INFINITY {
		t.Errorf("unlimited: got %d, %t", n, ok)
	}
	if r := files(unix.RLIM_INFINITY, "it"); r.Status != OK {
		t.Errorf("unlimited: got %+v", r)
	}
	if r := OwnFiles(); r.Status == Unknown {
		t.Errorf("own limit: got %+v", r)
	}
}

// A link to itself cannot be read by root either.
func TestUnreadableIsUnknown(t *testing.T) {
	t.Parallel()
	loop := filepath.Join(t.TempDir(), "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	_, lookErr := Look(loop)
	if lookErr == nil {
		t.Error("the disk of a link to itself: no error")
	}
	_, kubeletErr := ReadKubelet(loop, "")
	_, dirErr := ReadKubelet(write(t, filepath.Join(t.TempDir(), "c"), "kind: KubeletConfiguration\n"), loop+"/x")
	for name, got := range map[string][]Result{
		"folder":            Folder(loop),
		"format":            {Format(loop)},
		"times":             {Times(loop, time.Now())},
		"kubelet":           {KubeletUnread(kubeletErr)},
		"kubelet drop-ins":  {KubeletUnread(dirErr)},
		"no kubelet":        {KubeletUnread(fs.ErrNotExist)},
		"open files":        {DaemonFiles(-1)},
		"containerd config": containerdConfig(loop, "/etc/containerd/certs.d"),
		"hosts.toml":        hostsFiles(hosts.Options{CertsDir: loop, MirrorURL: "http://127.0.0.1:5929"}),
		"runtime":           Runtime(t.Context(), loop, false),
	} {
		if len(got) != 1 || got[0].Status != Unknown || got[0].Found == "" {
			t.Errorf("%s: got %+v, want unknown", name, got)
		}
	}
}
