package admin

import (
	"net/http"
	"net/http/pprof"
)

// addProfiles has the daemon tell of itself what Go's pprof asks. It is for the
// admin socket alone, which is root's: a profile costs time, and a heap may have
// secrets in it. What net/http/pprof adds to http.DefaultServeMux, nobody serves.
func addProfiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}
