package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
)

// collect streams what goes, then the result. It ends with its client: what has
// gone is gone.
func (s *server) collect(w http.ResponseWriter, r *http.Request) {
	var req CollectRequest
	if err := decode(r, &req); err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	encoder, flusher := json.NewEncoder(w), http.NewResponseController(w)
	send := func(ev CollectEvent) {
		if encoder.Encode(ev) == nil {
			_ = flusher.Flush() // that the client left shows in the request's context
		}
	}
	send(CollectEvent{}) // a sign of life: choosing may take seconds
	done, err := s.registry.Store.Collect(r.Context(), cache.CollectOptions{
		To: req.To, DryRun: req.DryRun, Report: func(ev cache.Eviction) { send(CollectEvent{Evicted: &ev}) },
	})
	var usage cache.Usage
	if err == nil {
		usage, err = s.registry.Store.Usage()
	}
	if err != nil {
		send(CollectEvent{Error: err.Error()})
		return
	}
	send(CollectEvent{Result: &CollectResult{Collected: done, DryRun: req.DryRun, Space: usage}})
}

// Collect makes room now, and calls report for each thing that goes.
func (c *Client) Collect(ctx context.Context, req CollectRequest, report func(cache.Eviction)) (CollectResult, error) {
	resp, err := c.do(ctx, http.MethodPost, "gc", "", req)
	if err != nil {
		return CollectResult{}, err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var ev CollectEvent
		if err := dec.Decode(&ev); err != nil {
			if ctx.Err() != nil {
				return CollectResult{}, ctx.Err()
			}
			return CollectResult{}, fmt.Errorf("the daemon ended in the middle; what has gone is gone: %w", err)
		}
		switch {
		case ev.Result != nil:
			return *ev.Result, nil
		case ev.Error != "":
			return CollectResult{}, errors.New(ev.Error)
		case ev.Evicted != nil:
			report(*ev.Evicted)
		}
	}
}

// fate tells what became of a digest or a reference.
func (s *server) fate(r *http.Request) (any, error) {
	store := s.registry.Store
	var f Fate
	var err error
	if dgst := digest.Digest(r.URL.Query().Get("ref")); dgst.Validate() == nil {
		f.Digest = dgst
		f.Stored, err = store.Has(dgst)
	} else {
		ref, perr := s.reference(r)
		if perr != nil {
			return nil, perr
		}
		if ref.Digest != "" {
			ref.Tag = ""
		}
		f.Name = ref.String()
		_, err = s.registry.Image(ref)
		f.Stored = err == nil
		if errdefs.IsNotFound(err) {
			err = nil
		}
	}
	if err != nil {
		return nil, err
	}
	switch gr, err := store.GraveOf(f.Name, f.Digest); {
	case err == nil:
		f.Evicted = &gr
	case !errdefs.IsNotFound(err):
		return nil, err
	}
	return f, nil
}

// Fate asks what became of a reference or a digest.
func (c *Client) Fate(ctx context.Context, ref string) (f Fate, err error) {
	return f, c.call(ctx, http.MethodGet, "fate", ref, nil, &f)
}
