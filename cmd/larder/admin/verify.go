package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/larder-project/larder/remotes"
)

// VerifyRequest asks to read stored blobs and to compare their digests.
type VerifyRequest struct {
	// Refs are the images; without any it is all that is stored, or, if Since
	// is not 0, what was stored in that time.
	Refs  []string      `json:"refs,omitempty"`
	Since time.Duration `json:"since,omitzero"`
	// NoRefetch leaves away what is damaged.
	NoRefetch bool `json:"noRefetch,omitempty"`
}

// VerifyEvent is one line of the answer to a VerifyRequest. Exactly one field
// is set but for the last line: Result, and Error if it was not all.
type VerifyEvent struct {
	Progress *remotes.VerifyProgress `json:"progress,omitempty"`
	Result   *remotes.VerifyResult   `json:"result,omitempty"`
	Error    string                  `json:"error,omitempty"`
}

// Verify has blobs verified and calls report with how far it is. The result is
// also that of a verification which failed in the middle.
func (c *Client) Verify(ctx context.Context, req VerifyRequest, report func(remotes.VerifyProgress)) (remotes.VerifyResult, error) {
	resp, err := c.do(ctx, http.MethodPost, "verify", "", req)
	if err != nil {
		return remotes.VerifyResult{}, err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var ev VerifyEvent
		if err := dec.Decode(&ev); err != nil {
			if ctx.Err() != nil {
				return remotes.VerifyResult{}, ctx.Err()
			}
			return remotes.VerifyResult{}, fmt.Errorf("the daemon ended in the middle of the verification: %w", err)
		}
		switch {
		case ev.Result != nil && ev.Error != "":
			return *ev.Result, errors.New(ev.Error)
		case ev.Result != nil:
			return *ev.Result, nil
		case ev.Progress != nil:
			report(*ev.Progress)
		}
	}
}

// VerifyHere is what the daemon does for a VerifyRequest, for who has the
// store itself.
func VerifyHere(ctx context.Context, registry *remotes.Registry, req VerifyRequest, report func(remotes.VerifyProgress)) (remotes.VerifyResult, error) {
	opts := remotes.VerifyOptions{Refetch: !req.NoRefetch, Report: report}
	if req.Since > 0 {
		opts.Since = time.Now().Add(-req.Since)
	}
	for _, text := range req.Refs {
		ref, err := registry.ParseReference(text)
		if err != nil {
			return remotes.VerifyResult{Damaged: []remotes.DamagedBlob{}}, err
		}
		opts.Refs = append(opts.Refs, ref)
	}
	return registry.Verify(ctx, opts)
}

// verify streams progress, then the result. It ends when the client leaves;
// what it has found is kept.
func (s *server) verify(w http.ResponseWriter, r *http.Request) {
	var req VerifyRequest
	if err := decode(r, &req); err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := &verifyWriter{encoder: json.NewEncoder(w), flusher: http.NewResponseController(w)}
	result, err := VerifyHere(r.Context(), s.registry, req, out.progress)
	ev := VerifyEvent{Result: &result}
	if err != nil {
		ev.Error = err.Error()
	}
	out.send(ev)
}

// verifyWriter sends events, progress not more often than reportEvery.
type verifyWriter struct {
	encoder *json.Encoder
	flusher *http.ResponseController
	last    time.Time
}

func (v *verifyWriter) progress(p remotes.VerifyProgress) {
	if now := time.Now(); p.Damaged != nil || now.Sub(v.last) >= reportEvery {
		v.last = now
		v.send(VerifyEvent{Progress: &p})
	}
}

func (v *verifyWriter) send(ev VerifyEvent) {
	if v.encoder.Encode(ev) == nil {
		_ = v.flusher.Flush() // a client that left shows in the request's context
	}
}
