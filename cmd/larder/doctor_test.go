package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/larder-project/larder/cmd/larder/doctor"
	"github.com/larder-project/larder/plugin/hosts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// examined is a node that larder doctor can look at.
type examined struct {
	*testDaemon
	args []string
}

// examine sets up containerd's files for a daemon, whose port is fixed from then
// on.
func examine(t *testing.T, d *testDaemon) *examined {
	t.Helper()
	text, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	fixed := strings.Replace(string(text), `address = ":0"`, fmt.Sprintf("address = %q", strings.TrimPrefix(d.mirror, "http://")), 1)
	if err := os.WriteFile(d.config, []byte(fixed), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certs, containerd, kubelet := filepath.Join(dir, "certs.d"), filepath.Join(dir, "containerd.toml"), filepath.Join(dir, "kubelet.yaml")
	for file, text := range map[string]string{
		containerd: fmt.Sprintf("version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = %q\n", certs),
		kubelet:    "kind: KubeletConfiguration\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.mustLarder(t, "setup", "containerd", "--certs-d", certs, "--containerd-config", containerd)
	return &examined{d, []string{"doctor", "--json", "--certs-d", certs, "--containerd-config", containerd, "--kubelet-config", kubelet}}
}

// doctor runs the verb, and returns what it found by check.
func (e *examined) doctor(t *testing.T, more ...string) (map[string][]doctor.Result, int) {
	t.Helper()
	code, stdout, stderr := e.larder(t, append(slices.Clone(e.args), more...)...)
	report := decodeJSON[doctor.Report](t, stdout)
	if report.Healthy != (code == 0) {
		t.Errorf("healthy is %t, and the exit code %d: %s", report.Healthy, code, stderr)
	}
	byCheck := map[string][]doctor.Result{}
	for _, r := range report.Checks {
		byCheck[r.Check] = append(byCheck[r.Check], r)
	}
	return byCheck, code
}

// want checks that one of a check's results has a status and says something.
func want(t *testing.T, when string, got map[string][]doctor.Result, check string, status doctor.Status, found string) {
	t.Helper()
	if !slices.ContainsFunc(got[check], func(r doctor.Result) bool { return r.Status == status && strings.Contains(r.Found, found) }) {
		t.Errorf("%s: %s is %+v, want %s that says %q", when, check, got[check], status, found)
	}
}

// A daemon on a node that was set up, and what doctor says when it is gone.
func TestDoctor(t *testing.T) {
	t.Parallel()
	e := examine(t, startDaemon(t))
	got, code := e.doctor(t)
	if code != 0 {
		t.Errorf("a node that was set up: exit %d, %+v", code, got)
	}
	want(t, "runs", got, "config", doctor.OK, e.config)
	want(t, "runs", got, "daemon", doctor.OK, fmt.Sprint(os.Getpid()))
	want(t, "runs", got, "mirror", doctor.OK, e.mirror)
	want(t, "runs", got, "open files", doctor.OK, "the daemon may open")
	want(t, "runs", got, "store format", doctor.OK, "1")
	want(t, "runs", got, "clock", doctor.OK, "nothing in the store is later")
	want(t, "runs", got, "containerd config", doctor.OK, "both pull paths")
	want(t, "runs", got, "hosts.toml", doctor.OK, e.mirror)
	if len(got["upstream"]) > 0 || len(e.registry.Requests()) > 0 {
		t.Errorf("an upstream was asked without --online: %+v", got["upstream"])
	}
	got, _ = e.doctor(t, "--online")
	want(t, "--online", got, "upstream", doctor.OK, e.registry.Host())
	if n := len(got["upstream"]); n != 1 {
		t.Errorf("--online: %d upstreams, want the configured one", n)
	}

	e.stop()
	got, code = e.doctor(t)
	if code != 0 {
		t.Errorf("no daemon: exit %d, want 0", code)
	}
	want(t, "no daemon", got, "daemon", doctor.Warning, "none on")
	want(t, "no daemon", got, "mirror", doctor.Warning, "not listened on")
	want(t, "no daemon", got, "open files", doctor.OK, "started from here")
	want(t, "no daemon", got, "hosts.toml", doctor.OK, e.mirror)
}

// What is wrong beside a daemon that runs.
func TestDoctorFindsProblems(t *testing.T) {
	t.Parallel()
	e := examine(t, startDaemon(t))
	sound, err := os.ReadFile(e.config)
	if err != nil {
		t.Fatal(err)
	}
	e.registry.Fault(remotestest.Any(), remotestest.Status(http.StatusInternalServerError, nil, ""))
	for name, c := range map[string]struct {
		old, new string
		check    string
		status   doctor.Status
		found    string
		args     []string
	}{
		"a wrong key":       {old: "root = ", new: "roof = 1\nroot = ", check: "config", status: doctor.Problem, found: "roof"},
		"and what needs it": {old: "root = ", new: "roof = 1\nroot = ", check: "mirror", status: doctor.Unknown, found: "configuration"},
		"another root":      {old: "/store\"", new: "/other\"", check: "daemon", status: doctor.Warning, found: "its store is"},
		"no fixed port":     {old: strings.TrimPrefix(e.mirror, "http://"), new: ":0", check: "mirror", status: doctor.Problem, found: "fixed port"},
		"no such port":      {old: strings.TrimPrefix(e.mirror, "http://"), new: "127.0.0.1:1", check: "mirror", status: doctor.Problem, found: "refused"},
		"hosts.toml is old": {old: strings.TrimPrefix(e.mirror, "http://"), new: "127.0.0.1:1", check: "hosts.toml", status: doctor.Problem, found: "docker.io"},
		"proxy is on":       {old: "[admin]", new: "[proxy]\nenabled = true\n[admin]", check: "containerd mode", status: doctor.Warning, found: "serves mode proxy"},
		"no secret file":    {old: "[admin]", new: "secret_file = \"/nowhere/secret\"\n[admin]", check: "mirror", status: doctor.Problem, found: "/nowhere/secret"},
		"no runtime":        {old: "[space]", new: "[space]\ncri = \"/nowhere/cri.sock\"", check: "container runtime", status: doctor.Problem, found: "/nowhere/cri.sock"},
		"upstream is down":  {check: "upstream", status: doctor.Problem, found: e.registry.Host(), args: []string{"--online"}},
		"no kubelet":        {check: "kubelet", status: doctor.Unknown, found: "/nowhere", args: []string{"--kubelet-config", "/nowhere"}},
	} {
		if err := os.WriteFile(e.config, []byte(strings.Replace(string(sound), c.old, c.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		got, code := e.doctor(t, c.args...)
		want(t, name, got, c.check, c.status, c.found)
		if c.status == doctor.Problem && code != exitFailure {
			t.Errorf("%s: exit %d, want %d", name, code, exitFailure)
		}
	}
}

// Who answers on the mirror's port is looked at.
func TestDoctorMirror(t *testing.T) {
	t.Parallel()
	e := examine(t, startDaemon(t))
	e.stop()
	answer := func(http.ResponseWriter) {}
	const secret = "c5d1f0e2a7b94836"
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(hosts.SecretHeader) != secret || r.URL.Path != "/v2/" {
			t.Errorf("the mirror is asked for %s with secret %q", r.URL.Path, r.Header.Get(hosts.SecretHeader))
		}
		answer(w)
	}))
	defer other.Close()
	secretFile := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secretFile, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(e.config)
	if err != nil {
		t.Fatal(err)
	}
	change := strings.NewReplacer(e.mirror[7:], other.URL[7:], "[admin]", fmt.Sprintf("secret_file = %q\n[admin]", secretFile))
	if err := os.WriteFile(e.config, []byte(change.Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	registry := func(status int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
			w.WriteHeader(status)
		}
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		status doctor.Status
		found  string
	}{
		"no registry":      {answer, doctor.Problem, "no registry"},
		"another registry": {registry(http.StatusOK), doctor.Warning, "not the daemon"},
		"broken":           {registry(http.StatusBadGateway), doctor.Problem, "answered 502"},
		"another secret":   {registry(http.StatusForbidden), doctor.Problem, "refuses the node secret"},
	} {
		answer = c.answer
		got, _ := e.doctor(t)
		want(t, name, got, "mirror", c.status, c.found)
	}
}

// A daemon of another version is told.
func TestDoctorVersions(t *testing.T) {
	t.Parallel()
	e := examine(t, startDaemon(t))
	e.stop()
	socket := filepath.Join(filepath.Dir(e.config), "admin.sock")
	listener, err := listenUnix(socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"version":"v0.0.1","pid":`+fmt.Sprint(os.Getpid())+`}`)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	got, _ := e.doctor(t)
	want(t, "an older daemon", got, "daemon", doctor.Warning, "larder v0.0.1, and this is "+version)
	_ = server.Close()
	<-done
}

func TestDoctorText(t *testing.T) {
	t.Parallel()
	e := examine(t, startDaemon(t))
	args := slices.DeleteFunc(slices.Clone(e.args), func(a string) bool { return a == "--json" })
	out := e.mustLarder(t, args...)
	if !strings.HasPrefix(out, "STATUS ") || !strings.Contains(out, "\nok ") || !strings.Contains(out, "\n0 problems, ") {
		t.Errorf("doctor printed\n%s", out)
	}
	if code, _, stderr := e.larder(t, "doctor", "--timeout", "0s"); code != exitUsage || !strings.Contains(stderr, "--timeout") {
		t.Errorf("--timeout 0s: exit %d, %s", code, stderr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr strings.Builder
	if code := run(ctx, append(args, "--config", e.config), &stdout, &stderr); code != exitFailure || stdout.Len() > 0 {
		t.Errorf("interrupted: exit %d, printed %q", code, stdout.String())
	}
}
