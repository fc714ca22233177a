package credentials

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

func basic(user string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + planted))
}

func TestDockerAuths(t *testing.T) {
	t.Parallel()
	file := write(t, "config.json", fmt.Sprintf(`{"auths":{
		"https://index.docker.io/v1/":{"auth":%q},
		"quay.io":{"auth":%q},
		"https://legacy.io/v2/":{"auth":%q},
		"token.io":{"auth":"","identitytoken":%q},
		"bearer.io":{"registrytoken":%q},
		"broken.io":{"auth":%q},
		"half.io":{"auth":%q},
		"empty.io":{}
	}}`, basic("hub"), basic("quay"), basic("legacy"), planted, planted, planted+"!", base64.StdEncoding.EncodeToString([]byte(planted))))
	c, l := newTest(t, Options{DockerConfig: file})
	for _, hub := range []string{"docker.io", "registry-1.docker.io", "index.docker.io"} {
		want(t, c, hub, "library/nginx", user("hub"))
	}
	want(t, c, "quay.io", "team/app", user("quay"))
	want(t, c, "quay.io:443", "team/app", user("quay"))
	want(t, c, "quay.io:5000", "team/app", upstream.Credential{})
	want(t, c, "legacy.io", "team/app", user("legacy"))
	want(t, c, "token.io", "team/app", upstream.Credential{Secret: planted})
	want(t, c, "empty.io", "team/app", upstream.Credential{})
	want(t, c, "bearer.io", "team/app", upstream.Credential{})
	if !strings.Contains(l.String(), "registrytoken") {
		t.Errorf("no word of the token that is not used:\n%s", l)
	}
	for _, host := range []string{"broken.io", "half.io"} {
		fails(t, c, errdefs.ErrInvalidArgument, host, "team/app", "docker_config", file, host)
	}
	// It is read anew.
	if err := os.WriteFile(file, []byte(`{"auths":{"quay.io":{"auth":"`+basic("other")+`"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, c, "quay.io", "team/app", user("other"))
	if err := os.WriteFile(file, []byte(`{"auths":{"quay.io":{"auth":"`+planted), 0o600); err != nil {
		t.Fatal(err)
	}
	fails(t, c, errdefs.ErrInvalidArgument, "quay.io", "team/app", "not a docker config.json")
	for _, nothing := range []string{"", "\n", "{}"} {
		if err := os.WriteFile(file, []byte(nothing), 0o600); err != nil {
			t.Fatal(err)
		}
		want(t, c, "quay.io", "team/app", upstream.Credential{})
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	want(t, c, "quay.io", "team/app", upstream.Credential{})
	if !strings.Contains(l.String(), "nobody has logged in") {
		t.Errorf("no word of the file that is gone:\n%s", l)
	}
}

func TestDockerHelpers(t *testing.T) {
	t.Parallel()
	asked := askedSince(t, "https://index.docker.io/v1/")
	file := write(t, "config.json", `{"auths":{"good-1.io":{"username":"no","password":"no"}},
		"credHelpers":{"good-1.io":"good","token-1.io":"token","none-1.io":"none","fail-1.io":"fail","noise-1.io":"noise",
			"chatty-1.io":"chatty","absent-1.io":"absent","path-1.io":"../good","https://index.docker.io/v1/":"good"}}`)
	c, _ := newTest(t, Options{DockerConfig: file})
	want(t, c, "good-1.io", "team/app", user("u"))
	want(t, c, "registry-1.docker.io", "library/nginx", user("u"))
	want(t, c, "token-1.io", "team/app", upstream.Credential{Secret: planted})
	want(t, c, "none-1.io", "team/app", upstream.Credential{})
	want(t, c, "other-1.io", "team/app", upstream.Credential{})
	fails(t, c, errdefs.ErrUnavailable, "fail-1.io", "team/app", "docker-credential-fail", "exit status 1", "by hand")
	fails(t, c, errdefs.ErrInvalidArgument, "noise-1.io", "team/app", "docker-credential-noise", "no JSON")
	fails(t, c, errdefs.ErrInvalidArgument, "chatty-1.io", "team/app", "docker-credential-chatty", "wrote more than")
	fails(t, c, errdefs.ErrNotFound, "absent-1.io", "team/app", "docker-credential-absent", "PATH")
	fails(t, c, errdefs.ErrInvalidArgument, "path-1.io", "team/app", "want the part of its name")
	if n := asked(); n != 1 {
		t.Errorf("the helper was asked %d times by docker's own key for Docker Hub, want once", n)
	}
}

func TestDockerStore(t *testing.T) {
	t.Parallel()
	file := write(t, "config.json", `{"credsStore":"good","credHelpers":{"own-2.io":"none"}}`)
	c, _ := newTest(t, Options{DockerConfig: file})
	want(t, c, "any-2.io", "team/app", user("u"))
	want(t, c, "own-2.io", "team/app", upstream.Credential{})
}

func TestOneProgramForManyCallers(t *testing.T) {
	t.Parallel()
	asked := askedSince(t, "many-3.io")
	file := write(t, "config.json", `{"credHelpers":{"many-3.io":"good"}}`)
	c, _ := newTest(t, Options{DockerConfig: file})
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() { want(t, c, "many-3.io", fmt.Sprintf("team/app%d", i), user("u")) })
	}
	all.Wait()
	if n := asked(); n != 1 {
		t.Errorf("the helper ran %d times for 100 callers, want once", n)
	}
}

// A program that hangs, or one that leaves a child with its pipes behind, ends
// with its time and takes its children along.
func TestProgramEndsInTime(t *testing.T) {
	t.Parallel()
	child := filepath.Join(t.TempDir(), "pid")
	for _, mode := range []string{"hang", "orphan"} {
		path, err := exec.LookPath(helperPrefix + mode)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		out, err := program{path: path, args: []string{"get"}}.run(ctx, []byte(child))
		if err == nil || len(out) > 0 || !errdefs.IsUnavailable(err) {
			t.Errorf("%s: got %q, %v, want it ended", mode, out, err)
		}
		if took := time.Since(begun); took > 8*time.Second {
			t.Errorf("%s: took %s", mode, took)
		}
	}
	pid, err := os.ReadFile(child)
	if err != nil {
		t.Fatal(err)
	}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for tries := 0; ; tries++ {
		// A dead process that nobody waits for has an empty command line.
		if line, _ := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(pid)), "cmdline")); len(line) == 0 {
			return
		} else if tries > 500 {
			t.Fatalf("the orphan runs on: %q", line)
		}
		<-poll.C
	}
}

// What a helper writes to standard error does not get into larder's.
func TestHelpersErrorsAreNotPassedOn(t *testing.T) {
	t.Parallel()
	file := write(t, "config.json", `{"credHelpers":{"quiet-9.io":"good"}}`)
	out, _ := asProgram(t, "quiet-9.io", "LARDER_TEST_DOCKER="+file, "PATH="+os.Getenv("PATH"), programsDir+"="+os.Getenv(programsDir))
	if out != "credential of u planted=true err=<nil>" {
		t.Errorf("got %q, want a credential", out)
	}
}

// A helper that fails is not run again for each pull.
func TestFailingHelperIsLeftAlone(t *testing.T) {
	t.Parallel()
	asked := askedSince(t, "fail-5.io")
	file := write(t, "config.json", `{"credHelpers":{"fail-5.io":"fail"}}`)
	c, _ := newTest(t, Options{DockerConfig: file})
	for i := range 5 {
		fails(t, c, errdefs.ErrUnavailable, "fail-5.io", fmt.Sprintf("team/app%d", i), "exit status 1")
	}
	if n := asked(); n != 1 {
		t.Errorf("the helper ran %d times, want once", n)
	}
}

func TestReporterIsQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &logs{}
		r := l.reporter()
		for range 3 {
			r.warn("a", "first")
			r.warn("b", "second")
		}
		<-time.After(quiet)
		r.warn("a", "first")
		if a, b := strings.Count(l.String(), "first"), strings.Count(l.String(), "second"); a != 2 || b != 1 {
			t.Errorf("logged %d and %d times, want 2 and 1", a, b)
		}
	})
}
