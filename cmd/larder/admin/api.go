// Package admin is what larder's verbs and its daemon say to each other: JSON
// over HTTP on a unix socket. Only the socket's owner can connect.
package admin

import (
	"time"

	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/upstream"
)

// Status says who answers.
type Status struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Root    string    `json:"root"`
	// Mirror is the mirror's URL.
	Mirror string `json:"mirror"`
	// Upstreams are what is known of the upstreams that were asked since then.
	Upstreams []upstream.Account `json:"upstreams,omitempty"`
	// Sources says who answered since then, and who was passed over. Nil if
	// nobody was asked.
	Sources *remotes.Sources `json:"sources,omitempty"`
}

// PullRequest asks for an image with all its blobs.
type PullRequest struct {
	Ref       string   `json:"ref"`
	Platforms []string `json:"platforms,omitempty"`
}

// PullEvent is one line of the answer to a PullRequest. Exactly one field is
// set; Result or Error is the last line.
type PullEvent struct {
	Blob   *remotes.BlobProgress `json:"blob,omitempty"`
	Result *PullResult           `json:"result,omitempty"`
	Error  string                `json:"error,omitempty"`
}

// PullResult is the end of a pull.
type PullResult struct {
	Ref       string          `json:"ref"`
	Digest    string          `json:"digest"`
	MediaType string          `json:"mediaType"`
	Outcome   remotes.Outcome `json:"outcome"`
	// Manifests and Blobs count what the image has; Bytes is their size,
	// Fetched the part that came from upstream now.
	Manifests int   `json:"manifests"`
	Blobs     int   `json:"blobs"`
	Bytes     int64 `json:"bytes"`
	Fetched   int64 `json:"fetched"`
	// Companions counts the artifacts that are stored with the image, such as
	// signatures. Warning is why some could not be fetched.
	Companions int    `json:"companions"`
	Warning    string `json:"warning,omitempty"`
}

// RefreshResult says what a refresh found.
type RefreshResult struct {
	Ref string `json:"ref"`
	// Digest is what the tag points to now, Before what it pointed to
	// ("" if it was not stored).
	Digest string `json:"digest"`
	Before string `json:"before,omitempty"`
	Moved  bool   `json:"moved"`
}

// PinRequest asks to keep an image.
type PinRequest struct {
	Ref    string `json:"ref"`
	Reason string `json:"reason,omitempty"`
}

// UnpinResult names whose pin was taken away.
type UnpinResult struct {
	Ref string `json:"ref"`
}

// RemoveResult says what a removal freed.
type RemoveResult struct {
	Ref string `json:"ref"`
	remotes.Removed
}

// errorAnswer is the body of an answer that is no success.
type errorAnswer struct {
	Error string `json:"error"`
}
