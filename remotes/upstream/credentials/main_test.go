package credentials

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/larder-project/larder/remotes/upstream"
)

// planted is the secret that no test may find anywhere but in a Credential.
const planted = "pl4nted-s3cret"

// programsDir has the programs that this package runs, as shell scripts: they
// start faster than the test binary does.
const programsDir = "LARDER_TEST_PROGRAMS"

func TestMain(m *testing.M) {
	if host := os.Getenv("LARDER_TEST_CHAIN"); host != "" {
		os.Exit(beChain(host))
	}
	dir, err := os.MkdirTemp("", "larder-programs")
	if err == nil {
		err = installPrograms(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// helperScript is a docker credential helper that notes what it is asked for.
const helperScript = `#!/bin/sh
[ "$*" = get ] || exit 2
address=$(cat)
printf '%s\n' "$address" >>"$` + programsDir + `/asked"
echo debug: ` + planted + ` >&2
case ${0##*docker-credential-} in
good) printf '{"ServerURL":"%s","Username":"u","Secret":"` + planted + `"}' "$address" ;;
token) echo '{"Username":"<token>","Secret":"` + planted + `"}' ;;
none) echo ` + helperNothing + `; exit 1 ;;
fail) echo cannot open ` + planted + `; exit 1 ;;
noise) echo ` + planted + ` ;;
chatty) yes ` + planted + ` ;;
hang) sleep 3600 ;;
orphan) sleep 3600 & # it holds standard output
	echo $! >"$address" ;;
esac
`

// pluginScript is a kubelet credential provider plugin: its environment says
// what it answers.
const pluginScript = `#!/bin/sh
printf '%s%s\n' "$*" "$(cat)" >>"$PLUGIN_LOG"
echo debug: ` + planted + ` >&2
printf '%s' "$PLUGIN_ANSWER"
exit ${PLUGIN_FAIL:-0}
`

// installPrograms puts docker credential helpers on the PATH. That is done
// before any test runs, since they run in parallel, and since a script must
// not be run while a fork holds it open for writing.
func installPrograms(dir string) error {
	for name, text := range map[string]string{"helper": helperScript, "plugin": pluginScript} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			return err
		}
	}
	for _, mode := range []string{"good", "token", "none", "fail", "chatty", "noise", "hang", "orphan"} {
		if err := os.Symlink("helper", filepath.Join(dir, helperPrefix+mode)); err != nil {
			return err
		}
	}
	if err := os.Setenv(programsDir, dir); err != nil {
		return err
	}
	return os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// beChain is a program that uses the package with AWS's environment.
func beChain(host string) int {
	c, err := New(Options{ECR: true, DockerConfig: os.Getenv("LARDER_TEST_DOCKER")})
	if err != nil {
		return 2
	}
	begun := time.Now()
	cred, err := c.Credential(context.Background(), host, "team/app")
	fmt.Fprintf(os.Stdout, "%v %v planted=%v err=%v", time.Since(begun), cred, cred.Secret == planted, err)
	return 0
}

// askedFile is where the helpers note what they are asked for.
func askedFile() string { return filepath.Join(os.Getenv(programsDir), "asked") }

// askedSince counts how often the helpers are asked for a text from now on: one
// process may run a test more than once.
func askedSince(t *testing.T, text string) func() int {
	t.Helper()
	before := noted(t, askedFile(), text)
	return func() int { return noted(t, askedFile(), text) - before }
}

// noted counts the lines of a file that hold a text.
func noted(t *testing.T, file, text string) int {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	n := 0
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		if strings.Contains(lines.Text(), text) {
			n++
		}
	}
	return n
}

// logs is a log that a test can read while it is written.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *logs) reporter() *reporter { return newReporter(l.logger()) }

// newTest makes a Chain and fails the test if its log ever tells the secret.
func newTest(t *testing.T, o Options) (*Chain, *logs) {
	t.Helper()
	l := &logs{}
	o.Logger = l.logger()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if strings.Contains(l.String(), planted) {
			t.Errorf("the log tells the secret:\n%s", l)
		}
	})
	return c, l
}

// want asks a chain for what must be there.
func want(t *testing.T, c *Chain, host, repository string, cred upstream.Credential) {
	t.Helper()
	got, err := c.Credential(soon(t), host, repository)
	if err != nil || got != cred {
		t.Errorf("%s/%s: got %v, %v, want %v", host, repository, got, err, cred)
	}
}

// fails asks a chain for what must fail, with an error that tells no secret.
func fails(t *testing.T, c *Chain, kind error, host, repository string, texts ...string) {
	t.Helper()
	got, err := c.Credential(soon(t), host, repository)
	if !errors.Is(err, kind) || !got.IsZero() {
		t.Fatalf("%s/%s: got %v, %v, want %v", host, repository, got, err, kind)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s/%s: got %q, want it to say %q", host, repository, err, text)
		}
	}
	for _, text := range []string{fmt.Sprintf("%v", err), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
		if strings.Contains(text, planted) || strings.Contains(text, "\n") {
			t.Errorf("the error tells the secret: %q", text)
		}
	}
}

func user(name string) upstream.Credential {
	return upstream.Credential{Username: name, Secret: planted}
}

func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// write makes a file in a folder of the test.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func secretText(name string) string {
	return fmt.Sprintf(`{"username":%q,"accessToken":%q}`, name, planted)
}
