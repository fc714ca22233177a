package parts

import (
	"context"
	"io"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/larder-project/larder/remotes/remotestest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// workbench finds the programs and makes a private folder for a test.
func workbench(t *testing.T, programs ...string) (Bin, string) {
	t.Helper()
	bin, err := FindBin()
	if err != nil {
		t.Fatal(err)
	}
	if err := bin.Need(programs...); err != nil {
		t.Fatal(err)
	}
	dir, err := TempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return bin, dir
}

// ended closes a part after the test.
func ended(t *testing.T, close func() error) {
	t.Helper()
	t.Cleanup(func() {
		if err := close(); err != nil {
			t.Errorf("cleanup: %v", err)
		}
	})
}

// seed puts the image as tag 1 of each repository into a registry's files.
func seed(t *testing.T, bin Bin, dir string, repositories ...string) remotestest.Image {
	t.Helper()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 500})
	err := SeedRegistry(t.Context(), bin, dir, func(base string) error {
		for _, repository := range repositories {
			if err := remotestest.Push(t.Context(), base, repository, "1", img); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// reply is an answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

// ask makes a request on a connection of its own; prepare may change it.
func ask(t *testing.T, tr *http.Transport, method, url string, prepare func(*http.Request)) (reply, error) {
	t.Helper()
	if tr == nil {
		tr = &http.Transport{}
	}
	tr.DisableKeepAlives = true
	req, err := http.NewRequestWithContext(context.Background(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	if prepare != nil {
		prepare(req)
	}
	client := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(body)}, err
}
