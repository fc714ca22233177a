package hosts

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"
)

func TestEnsureSecretMakesOneForAll(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "larder", "secret")
	if _, err := ReadSecret(path); !errdefs.IsNotFound(err) {
		t.Errorf("read before: got %v, want not found", err)
	}
	type result struct {
		secret  string
		created bool
	}
	results := make([]result, 8)
	var g errgroup.Group
	for i := range results {
		g.Go(func() (err error) {
			results[i].secret, results[i].created, err = EnsureSecret(path)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	created := 0
	for _, r := range results {
		if r.secret != results[0].secret {
			t.Errorf("got two secrets")
		}
		if r.created {
			created++
		}
	}
	if created != 1 {
		t.Errorf("%d callers say that they created it, want 1", created)
	}
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(results[0].secret) {
		t.Errorf("got a secret of %d characters, want 64 hex digits", len(results[0].secret))
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 1 {
		t.Errorf("got files %v, error %v; want only the secret", files, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("got mode %v, error %v; want 0600", info.Mode(), err)
	}
}

func TestEnsureSecretTakesWhatIsThere(t *testing.T) {
	t.Parallel()
	path := put(t, t.TempDir(), "secret", " s3cret \n", 0o640)
	secret, created, err := EnsureSecret(path)
	if secret != "s3cret" || created || err != nil {
		t.Errorf("got %q, %v, %v; want the file's content", secret, created, err)
	}
}

func TestEnsureSecretRefusesBadContent(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"empty": "", "blank": " \n", "two lines": "topsecret\nsecond", "control": "topsecret\x00", "long": strings.Repeat("topsecret", 500),
	} {
		path := put(t, t.TempDir(), "secret", content, 0o600)
		_, created, err := EnsureSecret(path)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), path) || created {
			t.Errorf("%s: got created %v, error %v; want invalid argument that names the file", name, created, err)
		}
		if err != nil && strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
		if slurp(t, path) != content {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if _, _, err := EnsureSecret(t.TempDir()); err == nil {
		t.Error("a folder was taken for a secret")
	}
}
