package parts

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPrograms(t *testing.T) {
	t.Parallel()
	_, dir := workbench(t)
	helper, err := NewCredentialHelper(dir, "test", "ada", "pw1")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := call(t, helper, "registry.test:5000\n", "get"); err != nil || out != `{"Secret":"pw1","ServerURL":"","Username":"ada"}` {
		t.Errorf("helper: got %s, %v", out, err)
	}
	if err := helper.Fail("credentials not found in native keychain"); err != nil {
		t.Fatal(err)
	}
	if out, err := call(t, helper, "other.test", "get"); err == nil || !strings.Contains(out, "not found") {
		t.Errorf("failing helper: got %s, %v", out, err)
	}
	if got, want := helper.Calls(), []string{"get registry.test:5000", "get other.test"}; !slices.Equal(got, want) {
		t.Errorf("calls: got %q, want %q", got, want)
	}

	provider, err := NewCredentialProvider(dir, "127.0.0.1:5000", "127.0.0.1:5000", "0s", "ada", "pw1")
	if err != nil {
		t.Fatal(err)
	}
	if provider.Calls() != nil {
		t.Errorf("calls before any: %q", provider.Calls())
	}
	out, err := call(t, provider.Program, `{"image":"127.0.0.1:5000/team/app:1"}`)
	if err != nil || !strings.Contains(out, `"127.0.0.1:5000":{"password":"pw1","username":"ada"}`) {
		t.Errorf("provider: got %s, %v", out, err)
	}
	if text, err := os.ReadFile(provider.Config); err != nil || !strings.Contains(string(text), provider.Name) {
		t.Errorf("provider config: %s, %v", text, err)
	}
	file, err := WriteDockerConfig(dir, map[string]string{"a": base64.StdEncoding.EncodeToString([]byte("ada:pw1"))}, map[string]string{"b": "test"}, map[string]string{"c": "id"})
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(file); string(text) != `{"auths":{"a":{"auth":"YWRhOnB3MQ=="},"c":{"identitytoken":"id"}},"credHelpers":{"b":"test"}}` {
		t.Errorf("docker config: %s", text)
	}
}

func call(t *testing.T, p *Program, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(p.Dir, p.Name), args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
