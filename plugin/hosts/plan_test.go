package hosts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

func TestPlanSaysWhatApplyFindsAndWritesNothing(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Registries = []string{"docker.io", "quay.io", "ghcr.io", "cgr.dev"}
	if _, err := Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	o.Registries = append(o.Registries, "public.ecr.aws", "localhost")
	put(t, o.CertsDir, "public.ecr.aws/hosts.toml", "# theirs\n", 0o644)
	put(t, o.CertsDir, "ghcr.io/hosts.toml", slurp(t, filepath.Join(o.CertsDir, "ghcr.io", hostsName))+"#\n", 0o600)
	put(t, o.CertsDir, "cgr.dev/hosts.toml", "# theirs\n", 0o644)
	put(t, o.CertsDir, "cgr.dev/"+backupName, "# theirs before\n", 0o644)
	if err := os.Chmod(filepath.Join(o.CertsDir, "quay.io", hostsName), 0o640); err != nil {
		t.Fatal(err)
	}
	before := tree(t, o.CertsDir)

	files, err := Plan(o)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "ghcr.io") || !strings.Contains(err.Error(), "cgr.dev") {
		t.Errorf("got error %v, want refusals of ghcr.io and cgr.dev", err)
	}
	got := map[string]State{}
	for _, f := range files {
		got[f.Host] = f.State
	}
	want := map[string]State{
		"docker.io": StateSame, "quay.io": StateUpdate, "ghcr.io": StateEdited, "cgr.dev": StateConflict,
		"public.ecr.aws": StateForeign, "localhost": StateNew,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, tree(t, o.CertsDir)); diff != "" {
		t.Errorf("plan changed certs.d:\n%s", diff)
	}
}

func TestPlanIsWhatApplyWrites(t *testing.T) {
	t.Parallel()
	o := testOptions(filepath.Join(t.TempDir(), "certs.d"))
	o.Registries = append(DefaultRegistries(), "quay.io") // twice
	files, err := Plan(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(o.CertsDir); !os.IsNotExist(err) {
		t.Fatalf("plan made certs.d: %v", err)
	}
	if _, err := Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if len(files) != len(DefaultRegistries()) {
		t.Errorf("got %d files, want %d", len(files), len(DefaultRegistries()))
	}
	for _, f := range files {
		if diff := cmp.Diff(f.Content, slurp(t, f.Path)); diff != "" || f.State != StateNew {
			t.Errorf("%s, state %s (-plan +written):\n%s", f.Path, f.State, diff)
		}
	}
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Options){
		"no mirror":           func(o *Options) { o.MirrorURL = "" },
		"mirror no URL":       func(o *Options) { o.MirrorURL = "http://[::1" },
		"mirror without host": func(o *Options) { o.MirrorURL = "http://:5929" },
		"mirror scheme":       func(o *Options) { o.MirrorURL = "unix:///run/larder.sock" },
		"mirror path":         func(o *Options) { o.MirrorURL = "http://127.0.0.1:5929/v2" },
		"mirror user":         func(o *Options) { o.MirrorURL = "http://u:p@127.0.0.1:5929" },
		"secret new line":     func(o *Options) { o.Secret = "a\nb" },
		"secret quote":        func(o *Options) { o.Secret = `a"]` },
		"secret not ASCII":    func(o *Options) { o.Secret = "ä" },
		"secret long":         func(o *Options) { o.Secret = strings.Repeat("a", maxSecretBytes+1) },
		"registry empty":      func(o *Options) { o.Registries = []string{""} },
		"registry up":         func(o *Options) { o.Registries = []string{".."} },
		"registry path":       func(o *Options) { o.Registries = []string{"quay.io/org"} },
		"registry URL":        func(o *Options) { o.Registries = []string{"https://quay.io"} },
		"registry bare word":  func(o *Options) { o.Registries = []string{"quay"} },
		"registry alias":      func(o *Options) { o.Registries = []string{"index.docker.io"} },
		"registry backup":     func(o *Options) { o.Registries = []string{"_backup"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := testOptions(filepath.Join(t.TempDir(), "certs.d"))
			change(&o)
			_, perr := Plan(o)
			_, aerr := Apply(t.Context(), o)
			if !errdefs.IsInvalidArgument(perr) || !errdefs.IsInvalidArgument(aerr) {
				t.Errorf("got %v and %v, want invalid argument", perr, aerr)
			}
			if strings.Contains(aerr.Error(), "u:p@") {
				t.Errorf("the error tells a password: %v", aerr)
			}
			if _, err := os.Stat(o.CertsDir); !os.IsNotExist(err) {
				t.Error("certs.d was made all the same")
			}
		})
	}
}

func TestMirrorURL(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"127.0.0.1:5929": "http://127.0.0.1:5929",
		"localhost:80":   "http://localhost:80",
		":5929":          "http://127.0.0.1:5929",
		"0.0.0.0:5929":   "http://127.0.0.1:5929",
		"[::]:5929":      "http://[::1]:5929",
		"[fd00::1]:5929": "http://[fd00::1]:5929",
		"":               "", "5929": "", "127.0.0.1": "", "127.0.0.1:": "", ":0": "", "127.0.0.1:0": "",
	} {
		got, err := MirrorURL(address)
		if got != want || (want == "") != errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %q, error %v; want %q", address, got, err, want)
		}
	}
}

func FuzzValidHost(f *testing.F) {
	for _, host := range append(DefaultRegistries(), "a.b:1", "[::1]:5000", "..", "a/b", "a..b", "_5000_", "a\x00b:1") {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !validHost(host) {
			return
		}
		dir := hostDirectory(host)
		if !filepath.IsLocal(dir) || dir == "." || strings.ContainsAny(dir, "/\x00\n") || dir == stagingName || dir == "_backup" {
			t.Errorf("host %q gives folder %q", host, dir)
		}
		if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") && hostOfDirectory(dir) != host {
			t.Errorf("folder %q is taken for %q, want %q", dir, hostOfDirectory(dir), host)
		}
	})
}

func FuzzParseMark(f *testing.F) {
	whole := render(settings{mirror: testMirror, secret: "s", madeFolder: true})
	for _, text := range []string{"", "\n", string(fileMark), whole, whole[1:], whole + "\n", strings.Replace(whole, "5929", "5930", 1)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m := parseMark(text)
		_, body, line := strings.Cut(text, "\n")
		if whole := m.ours && !m.edited; line && whole != (text == fileMark.On(body)) {
			t.Errorf("got %+v for %q", m, text)
		}
	})
}
