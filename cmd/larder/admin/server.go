package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errhttp"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes"
)

// maxRequest bounds a request's body: a reference and a reason.
const maxRequest = 64 << 10

// server answers the verbs.
type server struct {
	registry *remotes.Registry
	status   Status
	plugins  func(*Status)
	logger   *slog.Logger
}

// NewHandler returns the daemon's side of the socket. plugins completes each Status
// with what the registry does not know.
func NewHandler(registry *remotes.Registry, status Status, plugins func(*Status), logger *slog.Logger) http.Handler {
	s := &server{registry: registry, status: status, plugins: plugins, logger: logger}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.answer(s.daemon))
	mux.HandleFunc("GET /v1/images", s.answer(s.images))
	mux.HandleFunc("GET /v1/image", s.answer(s.image))
	mux.HandleFunc("DELETE /v1/image", s.answer(s.remove))
	mux.HandleFunc("POST /v1/refresh", s.answer(s.refresh))
	mux.HandleFunc("PUT /v1/pin", s.answer(s.pin))
	mux.HandleFunc("DELETE /v1/pin", s.answer(s.unpin))
	mux.HandleFunc("GET /v1/pins", s.answer(s.pins))
	mux.HandleFunc("GET /v1/history", s.answer(s.history))
	mux.HandleFunc("GET /v1/lifecycle", s.answer(s.lifecycle))
	mux.HandleFunc("POST /v1/lifecycle", s.answer(s.runLifecycle))
	mux.HandleFunc("POST /v1/pull", s.pull)
	mux.HandleFunc("POST /v1/verify", s.verify)
	mux.HandleFunc("POST /v1/gc", s.collect)
	mux.HandleFunc("GET /v1/fate", s.answer(s.fate))
	addProfiles(mux)
	return mux
}

func (s *server) daemon(*http.Request) (any, error) {
	status := s.status
	s.plugins(&status)
	status.Store = s.registry.Store.Health()
	status.Upstreams = s.registry.Pool.Ledger()
	if sources := s.registry.Sources(); len(sources.Upstreams) > 0 {
		status.Sources = &sources
	}
	if usage, err := s.registry.Store.Usage(); err == nil {
		status.Space = &usage
	}
	scrub, err := s.registry.Store.ScrubState()
	if err != nil {
		return nil, err
	}
	status.Scrub = ScrubStatus{ScrubState: scrub, Waiting: scrub.Waiting}
	if status.Damages, err = s.registry.Store.Damages(); status.Damages == nil {
		status.Damages = []cache.Damage{}
	}
	return status, err
}

// answer makes a handler of a function that returns what to encode.
func (s *server) answer(do func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := do(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(v); err != nil {
			s.logger.WarnContext(r.Context(), "admin answer not sent", "path", r.URL.Path, "err", err)
		}
	}
}

func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(errhttp.ToHTTP(err))
	if err := json.NewEncoder(w).Encode(errorAnswer{Error: err.Error()}); err != nil {
		s.logger.WarnContext(r.Context(), "admin answer not sent", "path", r.URL.Path, "err", err)
	}
}

// reference reads the ref parameter.
func (s *server) reference(r *http.Request) (remotes.Reference, error) {
	return s.registry.ParseReference(r.URL.Query().Get("ref"))
}

func (s *server) images(r *http.Request) (any, error) {
	images, err := s.registry.Images(r.Context())
	if images == nil {
		images = []remotes.Image{}
	}
	return images, err
}

func (s *server) image(r *http.Request) (any, error) {
	ref, err := s.reference(r)
	if err != nil {
		return nil, err
	}
	return s.registry.Image(ref)
}

func (s *server) remove(r *http.Request) (any, error) {
	ref, err := s.reference(r)
	if err != nil {
		return nil, err
	}
	removed, err := s.registry.Remove(r.Context(), ref)
	return RemoveResult{Ref: ref.String(), Removed: removed}, err
}

func (s *server) refresh(r *http.Request) (any, error) {
	ref, err := s.reference(r)
	if err != nil {
		return nil, err
	}
	res := RefreshResult{Ref: ref.String()}
	if before, err := s.registry.Image(ref); err == nil {
		res.Before = before.Descriptor.Digest.String()
	}
	now, err := s.registry.Refresh(r.Context(), ref)
	if err != nil {
		return nil, err
	}
	res.Digest = now.Descriptor.Digest.String()
	res.Moved = res.Before != "" && res.Before != res.Digest
	return res, nil
}

func (s *server) pin(r *http.Request) (any, error) {
	req, err := s.pinRequest(r)
	if err != nil {
		return nil, err
	}
	return s.registry.Pin(r.Context(), cache.Pin{Name: req.Ref, Owner: req.Owner, Reason: req.Reason})
}

func (s *server) unpin(r *http.Request) (any, error) {
	req, err := s.pinRequest(r)
	if err != nil {
		return nil, err
	}
	return UnpinResult{Ref: req.Ref, Owner: cmp.Or(req.Owner, cache.PinOwnerCLI)}, s.registry.Unpin(req.Ref, req.Owner)
}

// pinRequest reads a request, and maps what it names.
func (s *server) pinRequest(r *http.Request) (req PinRequest, err error) {
	if err := decode(r, &req); err != nil {
		return req, err
	}
	req.Ref, err = s.registry.Names.PinName(req.Ref)
	return req, err
}

func (s *server) pins(r *http.Request) (any, error) {
	pins, err := s.registry.PinList(r.Context())
	if err != nil {
		return nil, err
	}
	answer := PinsAnswer{Pins: pins}
	if f := s.registry.PinFile; f != nil {
		if _, problem := f.Pins(); problem != nil {
			answer.Problem = problem.Error()
		}
	}
	return answer, nil
}

func decode(r *http.Request, v any) error {
	dec := json.NewDecoder(io.LimitReader(r.Body, maxRequest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("request: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// reportEvery is how often a blob's progress is sent.
const reportEvery = 100 * time.Millisecond

// pull streams progress, then the result. The pull's fills go on when the
// client leaves.
func (s *server) pull(w http.ResponseWriter, r *http.Request) {
	var req PullRequest
	if err := decode(r, &req); err != nil {
		s.fail(w, r, err)
		return
	}
	ref, err := s.registry.ParseReference(req.Ref)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := &eventWriter{encoder: json.NewEncoder(w), flusher: http.NewResponseController(w), last: map[string]time.Time{}}
	res, err := s.registry.Pull(r.Context(), ref, remotes.PullOptions{Platforms: req.Platforms, Report: out.blob})
	if err != nil {
		out.send(PullEvent{Error: err.Error()})
		s.logFailure(r.Context(), ref, err)
		return
	}
	result := &PullResult{
		Ref: ref.String(), Digest: res.Descriptor.Digest.String(), MediaType: res.Descriptor.MediaType, Outcome: res.Outcome,
		Manifests: res.Manifests, Blobs: res.Blobs, Bytes: res.Bytes, Fetched: res.Fetched,
		Companions: res.Companions,
	}
	if res.Unaccompanied != nil {
		result.Warning = res.Unaccompanied.Error()
	}
	out.send(PullEvent{Result: result})
}

func (s *server) logFailure(ctx context.Context, ref remotes.Reference, err error) {
	if !errors.Is(err, context.Canceled) {
		s.logger.WarnContext(ctx, "pull failed", "ref", ref.String(), "err", err)
	}
}

// eventWriter sends events, a blob's progress not more often than
// reportEvery. A client that left shows in the pull's context.
type eventWriter struct {
	mu      sync.Mutex // guards all below
	encoder *json.Encoder
	flusher *http.ResponseController
	last    map[string]time.Time
}

func (e *eventWriter) blob(p remotes.BlobProgress) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, key := time.Now(), p.Digest.String()
	if !p.Done && now.Sub(e.last[key]) < reportEvery {
		return
	}
	e.last[key] = now
	e.sendLocked(PullEvent{Blob: &p})
}

func (e *eventWriter) send(ev PullEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sendLocked(ev)
}

func (e *eventWriter) sendLocked(ev PullEvent) {
	if e.encoder.Encode(ev) == nil {
		_ = e.flusher.Flush() // as above: the pull's context tells
	}
}
