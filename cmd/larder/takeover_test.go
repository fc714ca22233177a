package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/plugin/takeover"
)

// larderOn runs larder with a configuration.
func larderOn(t *testing.T, config string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "larder.toml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	cmd := newRootCommand(&options{stdout: &out, stderr: &errOut})
	cmd.SetArgs(append(args, "--config", path))
	err = cmd.ExecuteContext(t.Context())
	return out.String(), errOut.String(), err
}

const servesContent = "\n[proxy]\nenabled = true\n"

// stoppedContainerd makes the root of one with one blob, whose bytes are these.
func stoppedContainerd(t *testing.T, dgst digest.Digest, data string) (root string) {
	t.Helper()
	root = t.TempDir()
	blobs, meta := filepath.Join(root, "io.containerd.content.v1.content", "blobs", "sha256"), filepath.Join(root, "io.containerd.metadata.v1.bolt")
	for _, dir := range []string{blobs, meta} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	db, err := bolt.Open(filepath.Join(meta, "meta.db"), 0o600, nil)
	if err == nil {
		err = errors.Join(db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucket([]byte("v1"))
			for _, name := range []string{"default", "content", "blob", dgst.String()} {
				if err == nil {
					b, err = b.CreateBucket([]byte(name))
				}
			}
			return err
		}), db.Close())
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(blobs, dgst.Encoded()), []byte(data), 0o444)
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestAdoptAndEjectCommands(t *testing.T) {
	t.Parallel()
	config := "root = \"" + filepath.Join(t.TempDir(), "store") + "\"" + servesContent
	root := stoppedContainerd(t, digest.FromString("blob"), "blob")
	stdout, stderr, err := larderOn(t, config, "adopt", "--containerd-root", root)
	if err != nil || !strings.Contains(stdout, "took over 1 blob, 4 B, without a copy") || !strings.Contains(stderr, "setup containerd --mode proxy") {
		t.Errorf("adopt: %q, %q, %v", stdout, stderr, err)
	}
	stdout, stderr, err = larderOn(t, config, "eject", "--containerd-root", root)
	if err != nil || !strings.Contains(stdout, "handed back 1 blob, without a copy") || !strings.Contains(stderr, "setup containerd --undo") {
		t.Errorf("eject: %q, %q, %v", stdout, stderr, err)
	}
}

func TestAdoptCommandReportsDamage(t *testing.T) {
	t.Parallel()
	config := "root = \"" + filepath.Join(t.TempDir(), "store") + "\"" + servesContent
	dgst := digest.FromString("blob")
	stdout, stderr, err := larderOn(t, config, "adopt", "--json", "--containerd-root", stoppedContainerd(t, dgst, "rot"))
	var res takeover.Adopted
	if jerr := json.Unmarshal([]byte(stdout), &res); jerr != nil || len(res.Damaged) != 1 || res.Damaged[0].Digest != dgst || stderr != "" {
		t.Errorf("%v: %q, %q", jerr, stdout, stderr)
	}
	if err == nil || !strings.Contains(err.Error(), "1 blob is damaged and not taken over") {
		t.Errorf("got %v", err)
	}
}

// What eject does not find, setup --undo would refuse to leave.
func TestEjectCommandReportsMissing(t *testing.T) {
	t.Parallel()
	config := "root = \"" + filepath.Join(t.TempDir(), "store") + "\"" + servesContent
	root := stoppedContainerd(t, digest.FromString("blob"), "blob")
	if err := os.RemoveAll(filepath.Join(root, "io.containerd.content.v1.content", "blobs")); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, err := larderOn(t, config, "eject", "--containerd-root", root)
	if err == nil || !strings.Contains(err.Error(), "1 blob is in containerd's database and nowhere else") || !strings.Contains(stderr, "--undo --forget-images") {
		t.Errorf("eject: %q, %q, %v", stdout, stderr, err)
	}
}

func TestTakeoverRefuses(t *testing.T) {
	t.Parallel()
	held := t.TempDir()
	store, err := cache.Open(held)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	there := stoppedContainerd(t, digest.FromString("blob"), "blob")
	for name, test := range map[string]struct {
		config, want string
		args         []string
	}{
		"not its store":  {"", "would not keep what it takes over", []string{"adopt", "--containerd-root", there}},
		"no containerd":  {servesContent, "name containerd's root with --containerd-root", []string{"adopt", "--containerd-root", "/no/such"}},
		"larder runs":    {"root = \"" + held + "\"" + servesContent, "stop larder first", []string{"adopt", "--containerd-root", there}},
		"eject, no root": {"root = \"/no/such\"\n", "root: ", []string{"eject", "--containerd-root", there}},
		"an argument":    {"", "adopt takes no arguments", []string{"adopt", "x"}},
	} {
		if _, _, err := larderOn(t, test.config, test.args...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}
