package remotestest

import (
	"net/http"
	"testing"
)

func TestRequireBasic(t *testing.T) {
	t.Parallel()
	reg := New(t)
	reg.PutBlob("team/app", []byte("x"))
	reg.Fault(Repo("team/app"), RequireBasic(func(user, password string) bool { return user == "kim" && password == "right" }))
	for password, want := range map[string]int{"right": 200, "wrong": 401, "": 401} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, reg.URL()+"/v2/team/app/tags/list", nil)
		if err != nil {
			t.Fatal(err)
		}
		if password != "" {
			req.SetBasicAuth("kim", password)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want || want == 401 && resp.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("password %q: status %d, want %d with a challenge", password, resp.StatusCode, want)
		}
	}
}
