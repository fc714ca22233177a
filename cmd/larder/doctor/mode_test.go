package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/larder-project/larder/plugin/containerdconf"
)

// A containerd that needs what larder does not serve is a problem; one that does
// not need what larder serves may be meant so.
func TestMode(t *testing.T) {
	t.Parallel()
	const (
		mark    = "# larder containerd config v1 sha256:0\n# mode: "
		plugins = "\n[proxy_plugins.larder-diff]\ntype = 'diff'\naddress = '/a.sock'\n"
	)
	for _, test := range []struct {
		wanted, served containerdconf.Mode
		socket         string
		status         Status
		found          string
	}{
		{"", containerdconf.Mirror, "/a.sock", OK, "mirror"},
		{"", containerdconf.Proxy, "/a.sock", Warning, "no file of larder's"},
		{containerdconf.Proxy, containerdconf.Proxy, "/a.sock", OK, "proxy"},
		{containerdconf.Proxy, containerdconf.Proxy, "/b.sock", Problem, "asks larder at /a.sock"},
		{containerdconf.Proxy, containerdconf.Mirror, "/a.sock", Problem, "no pod can be started"},
		{containerdconf.Proxy, containerdconf.MirrorDiff, "/a.sock", Problem, "no pod can be started"},
		{containerdconf.MirrorDiff, containerdconf.Mirror, "/a.sock", Problem, "pulls fail"},
		{containerdconf.MirrorDiff, containerdconf.Proxy, "/a.sock", Problem, "pulls fail"},
	} {
		dir := t.TempDir()
		if test.wanted != "" {
			dropIn := filepath.Join(dir, "conf.d", "50-larder.toml")
			if err := os.Mkdir(filepath.Dir(dropIn), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dropIn, []byte(mark+string(test.wanted)+plugins), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got := Mode(filepath.Join(dir, "config.toml"), test.served, test.socket)
		expect(t, string(test.wanted+" by "+test.served), []Result{got}, test.status, test.found)
	}
}
