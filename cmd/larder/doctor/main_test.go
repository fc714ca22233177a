package doctor

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// expect checks the only result of a check.
func expect(t *testing.T, when string, got []Result, status Status, found string) {
	t.Helper()
	if len(got) != 1 || got[0].Status != status || !contains(got[0].Found, found) {
		t.Errorf("%s: got %+v, want one result, %s, that says %q", when, got, status, found)
	}
	for _, r := range got {
		if r.Status == Problem && r.Remedy == "" {
			t.Errorf("%s: a problem without a remedy: %+v", when, r)
		}
	}
}
