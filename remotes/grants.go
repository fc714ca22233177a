package remotes

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	lru "github.com/hashicorp/golang-lru/v2"
)

// Access says how long it is remembered who may have what is private.
type Access struct {
	// Verified is how long upstream's yes holds before it is asked again.
	Verified time.Duration
	// Grace is how long it holds, counted from when it was said, while
	// upstream cannot be asked.
	Grace time.Duration
	// Refused is how long upstream's no holds, and how long an upstream that
	// could not be asked is not asked again for somebody who has a grace.
	Refused time.Duration
}

// DefaultAccess asks every five minutes, and bears an hour without an answer.
func DefaultAccess() Access {
	return Access{Verified: 5 * time.Minute, Grace: time.Hour, Refused: 10 * time.Second}
}

// Bounds of the memory: about 200 bytes each. Refusals have their own, so that
// who tries secrets does not drive out those that are right.
const (
	maxGrants   = 4096
	maxRefusals = 4096
	// maxVerifications is how many run at a time for a registry host: who tries
	// secrets costs upstream a request for each.
	maxVerifications = 32
	// maxUnverified is how many more may wait for it: each costs some memory,
	// for as long as a check may take, also when its client has left.
	maxUnverified = 4096
)

// grants remember to whom upstream said yes or no. They hold no secrets: those
// who ask are known by a hash with a key that this process made and never
// writes down. It is safe for concurrent use.
type grants struct {
	access  Access
	key     [sha256.Size]byte
	running shared[string] // what is asked about, by who asks

	mu       sync.Mutex       // makes one step of a look and a change
	lines    map[string]*line // by registry host: one never waits for another
	granted  *lru.Cache[string, grant]
	refusals negatives
}

// grant is upstream's yes.
type grant struct {
	verified time.Time // when it was said
	manifest string    // by which manifest, as tag or digest
	next     time.Time // not to be asked again before, after a failure
}

func newGrants(access Access) *grants {
	if access == (Access{}) {
		access = DefaultAccess()
	}
	granted, _ := lru.New[string, grant](maxGrants) // fails only for a size below 1
	g := &grants{
		access: access, lines: map[string]*line{},
		granted: granted, refusals: newNegatives(maxRefusals, access.Refused),
	}
	_, _ = rand.Read(g.key[:]) // never fails
	return g
}

// mac is a key for these texts that tells nothing of them. Lengths go in too:
// no two lists of texts have one.
func (g *grants) mac(texts ...string) string {
	h := hmac.New(sha256.New, g.key[:])
	for _, t := range texts {
		_ = binary.Write(h, binary.BigEndian, uint64(len(t))) // a hash takes everything
		h.Write([]byte(t))
	}
	return string(h.Sum(nil))
}

// question asks upstream for who is to be admitted. last is the manifest by
// which it said yes before, "" if it did not; the one by which it does now is
// returned.
type question func(ctx context.Context, last string) (manifest string, err error)

// admit returns nil if upstream of a registry host says yes to who (a mac), or
// has said so lately. about is what was asked for: that upstream does not have
// that is no answer about anything else. patience bounds the wait for upstream
// where the grace would do. Errors are those of ask, or the context's.
func (g *grants) admit(ctx context.Context, host, who, about string, patience time.Duration, ask question) error {
	for {
		open, err := g.recall(who, about, time.Now())
		if open || err != nil {
			return err
		}
		other, err := g.verify(ctx, host, who, about, patience, ask)
		if other && errdefs.IsNotFound(err) && ctx.Err() == nil {
			continue // somebody asked for something else, which is not there
		}
		return err
	}
}

// recall answers from memory: open admits, an error refuses, neither says that
// upstream is to be asked.
func (g *grants) recall(who, about string, now time.Time) (open bool, _ error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if has, ok := g.granted.Get(who); ok {
		graceful := now.Before(has.verified.Add(g.access.Grace)) && now.Before(has.next)
		if graceful || now.Before(has.verified.Add(g.access.Verified)) {
			return true, nil
		}
	}
	for _, key := range []string{who, refusalOf(who, about)} {
		if err := g.refusals.recall(key); err != nil {
			return false, err
		}
	}
	return false, nil
}

// verify asks upstream, once for all who want to know, whatever they asked for;
// other says that it was asked about something else.
func (g *grants) verify(ctx context.Context, host, who, about string, patience time.Duration, ask question) (other bool, _ error) {
	var p *haste
	if g.hasGrace(who) {
		p = &haste{most: patience}
	}
	asked, _, err := g.running.do(ctx, who, "the pull secret's verification", p, func(ctx context.Context) (string, error) {
		return about, g.ask(ctx, host, who, about, ask)
	})
	if err != nil && !isRefusal(err) && g.hasGrace(who) {
		err = nil
	}
	return asked != about, err
}

func (g *grants) ask(ctx context.Context, host, who, about string, ask question) error {
	release, err := g.place(ctx, host)
	if err != nil {
		return err
	}
	defer release()
	// Between a look and the begin of this work another one may have ended.
	if open, err := g.recall(who, about, time.Now()); open || err != nil {
		return err
	}
	manifest, err := ask(ctx, g.manifest(who))
	g.note(who, about, manifest, err, time.Now())
	return err
}

// note remembers upstream's answer. What is no answer leaves a grant as it is.
func (g *grants) note(who, about, manifest string, err error, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err == nil:
		g.granted.Add(who, grant{verified: now, manifest: manifest})
		g.refusals.forget(who)
	case errdefs.IsNotFound(err): // to one who may not have it, some say this
		g.granted.Remove(who)
		g.refusals.note(refusalOf(who, about), err)
	case isRefusal(err):
		g.granted.Remove(who)
		g.refusals.note(who, err)
	default:
		if has, ok := g.granted.Get(who); ok {
			has.next = now.Add(g.access.Refused)
			g.granted.Add(who, has)
		}
	}
}

// drop takes a grant back: upstream is asked before who is served again.
func (g *grants) drop(who string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.granted.Remove(who)
}

func (g *grants) hasGrace(who string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	has, ok := g.granted.Get(who)
	return ok && time.Now().Before(has.verified.Add(g.access.Grace))
}

func (g *grants) manifest(who string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	has, _ := g.granted.Get(who)
	return has.manifest
}

// refusalOf is the key of a refusal that is about one manifest only, or ("")
// about none that was known.
func refusalOf(who, about string) string { return who + " " + about }

// isRefusal tells what an upstream says of who asks, and not of itself.
func isRefusal(err error) bool {
	return errdefs.IsNotFound(err) || errdefs.IsPermissionDenied(err)
}
