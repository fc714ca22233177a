// Package admin is what larder's verbs and its daemon say to each other: JSON
// over HTTP on a unix socket. Only the socket's owner can connect.
package admin

import (
	"time"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
)

// Status says who answers.
type Status struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Root    string    `json:"root"`
	// Mirror is the mirror's URL.
	Mirror string `json:"mirror"`
	// Store says whether it stores, and why not.
	Store cache.Health `json:"store"`
	// Upstreams are what is known of the upstreams that were asked since then.
	Upstreams []upstream.Account `json:"upstreams,omitempty"`
	// Sources says who answered since then, and who was passed over. Nil if
	// nobody was asked.
	Sources *remotes.Sources `json:"sources,omitempty"`
	// Space is what the store takes, and may take. Nil if that cannot be told.
	Space *cache.Usage `json:"space,omitempty"`
	// Proxy is what containerd has larder do beyond the mirror. Nil: nothing.
	Proxy *ProxyStatus `json:"proxy,omitempty"`
	// Seed is how images are given to containerd without a copy. Nil: they are not.
	Seed *SeedStatus `json:"seed,omitempty"`
	// Scrub is how far the reading of the store is. Damages are the last
	// damaged blobs that were found, the oldest first; at most a thousand.
	Scrub   ScrubStatus    `json:"scrub"`
	Damages []cache.Damage `json:"damages"`
}

// ProxyStatus is larder as containerd's proxy plugins.
type ProxyStatus struct {
	Socket   string   `json:"socket"`
	Services []string `json:"services"`
	// Copies of layers, what they take and may take, in bytes.
	Copies    int   `json:"copies"`
	Bytes     int64 `json:"copies_bytes"`
	MostBytes int64 `json:"copies_max_bytes"`
}

// SeedStatus is how images are given to containerd's own content store.
type SeedStatus struct {
	Content string `json:"content"`
	// Images are how many were linked since the start.
	Images int64 `json:"images"`
	// Problem is why none can be now, "" if nothing is known to be wrong.
	Problem string `json:"problem,omitempty"`
}

// ScrubStatus is how far a scrub is.
type ScrubStatus struct {
	cache.ScrubState
	// Waiting is what it waits for, "" for nothing.
	Waiting string `json:"waiting,omitempty"`
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

// PinRequest asks to set a pin, or to take one away.
type PinRequest struct {
	// Ref is a reference, a digest or a pattern.
	Ref    string `json:"ref"`
	Owner  string `json:"owner,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// UnpinResult says which pin was taken away.
type UnpinResult struct {
	Ref   string `json:"ref"`
	Owner string `json:"owner"`
}

// PinsAnswer lists all pins. Problem is why the pin file could not be read as it
// is now.
type PinsAnswer struct {
	Pins    []remotes.PinStatus `json:"pins"`
	Problem string              `json:"problem,omitempty"`
}

// RemoveResult says what a removal freed.
type RemoveResult struct {
	Ref string `json:"ref"`
	remotes.Removed
}

// LifecycleResult says what lifecycle policies would do, or did.
type LifecycleResult struct {
	Repositories []remotes.LifecycleReport `json:"repositories"`
	// Removed is what a run freed, nil for a preview.
	Removed *remotes.Removed `json:"removed,omitempty"`
}

// CollectRequest asks to make room now.
type CollectRequest struct {
	// To is what the store may take afterwards, in bytes; negative: the low mark
	// of its budget.
	To int64 `json:"to"`
	// DryRun only tells what would go.
	DryRun bool `json:"dryRun,omitempty"`
}

// CollectEvent is one line of the answer to a CollectRequest. Exactly one field
// is set; Result or Error is the last line.
type CollectEvent struct {
	Evicted *cache.Eviction `json:"evicted,omitempty"`
	Result  *CollectResult  `json:"result,omitempty"`
	Error   string          `json:"error,omitempty"`
}

// CollectResult is the end of it.
type CollectResult struct {
	cache.Collected
	DryRun bool `json:"dryRun"`
	// Space is what the store takes now.
	Space cache.Usage `json:"space"`
}

// Fate says what became of an image or a blob.
type Fate struct {
	// Name is the full reference, Digest the blob; one of them is set.
	Name   string        `json:"name,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"`
	// Stored says that it is there now.
	Stored bool `json:"stored"`
	// Evicted is what is remembered of its last eviction, nil if nothing is.
	Evicted *cache.Grave `json:"evicted,omitempty"`
}

// errorAnswer is the body of an answer that is no success.
type errorAnswer struct {
	Error string `json:"error"`
}
