package credentials

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

// The test binary is also the programs that this package runs.
func TestMain(m *testing.M) {
	name := filepath.Base(os.Args[0])
	if mode, ok := strings.CutPrefix(name, helperPrefix); ok {
		os.Exit(beHelper(mode, os.Getenv("LARDER_TEST_ASKED")))
	}
	if os.Getenv("LARDER_TEST_PLUGIN") != "" {
		os.Exit(bePlugin())
	}
	if host := os.Getenv("LARDER_TEST_CHAIN"); host != "" {
		os.Exit(beChain(host))
	}
	dir, err := os.MkdirTemp("", "larder-helpers")
	if err == nil {
		err = installHelpers(dir)
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

// installHelpers puts docker credential helpers on the PATH. It is set before
// any test runs, since they run in parallel.
func installHelpers(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, mode := range []string{"good", "token", "none", "fail", "chatty", "noise", "hang", "orphan"} {
		if err := os.Symlink(self, filepath.Join(dir, helperPrefix+mode)); err != nil {
			return err
		}
	}
	asked := filepath.Join(dir, "asked")
	if err := os.Setenv("LARDER_TEST_ASKED", asked); err != nil {
		return err
	}
	return os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// beHelper is a docker credential helper that notes what it is asked for.
func beHelper(mode, asked string) int {
	address, err := io.ReadAll(os.Stdin)
	if err != nil || len(os.Args) != 2 || os.Args[1] != "get" {
		return 2
	}
	note(asked, string(address))
	fmt.Fprintln(os.Stderr, "debug:", planted)
	switch mode {
	case "good":
		fmt.Fprintf(os.Stdout, `{"ServerURL":%q,"Username":"u","Secret":%q}`, address, planted)
	case "token":
		fmt.Fprintf(os.Stdout, `{"Username":"<token>","Secret":%q}`, planted)
	case "none":
		fmt.Fprintln(os.Stdout, helperNothing)
		return 1
	case "fail":
		fmt.Fprintln(os.Stdout, "cannot open", planted)
		return 1
	case "noise":
		fmt.Fprintln(os.Stdout, planted)
	case "chatty":
		_, _ = os.Stdout.Write(bytes.Repeat([]byte(planted), 1<<17))
	case "hang":
		<-time.After(time.Hour)
	case "orphan": // leaves a child behind that holds standard output
		return orphan()
	}
	return 0
}

func orphan() int {
	self, err := os.Executable()
	if err != nil {
		return 2
	}
	in, err := os.CreateTemp("", "")
	if err != nil {
		return 2
	}
	os.Remove(in.Name())
	_, err = os.StartProcess(self, []string{helperPrefix + "hang", "get"}, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{in, os.Stdout, os.Stderr}})
	if err != nil {
		return 2
	}
	return 0
}

// bePlugin is a kubelet credential provider plugin: its environment says what
// it answers.
func bePlugin() int {
	request, err := io.ReadAll(os.Stdin)
	if err != nil {
		return 2
	}
	note(os.Getenv("PLUGIN_LOG"), strings.Join(os.Args[1:], " ")+string(request))
	fmt.Fprintln(os.Stderr, "debug:", planted)
	fmt.Fprint(os.Stdout, os.Getenv("PLUGIN_ANSWER"))
	if os.Getenv("PLUGIN_FAIL") != "" {
		return 1
	}
	return 0
}

// beChain is a program that uses the package with AWS's environment.
func beChain(host string) int {
	c, err := New(Options{ECR: true})
	if err != nil {
		return 2
	}
	cred, err := c.Credential(context.Background(), host, "team/app")
	fmt.Fprintf(os.Stdout, "%v planted=%v err=%v", cred, cred.Secret == planted, err)
	return 0
}

// note appends a line to a file, whole.
func note(file, text string) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintln(f, text)
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

func (l *logs) reporter(t *testing.T) *reporter {
	t.Helper()
	r, err := newReporter(l.logger())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

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
		if strings.Contains(text, planted) {
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
