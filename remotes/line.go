package remotes

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// line is who waits to be verified at a registry host, and who is.
type line struct {
	places chan struct{} // held while upstream is asked
	length int
}

// place waits until a question may be sent for a registry host. It returns
// errdefs.ErrUnavailable if too many wait, or the context's error.
func (g *grants) place(ctx context.Context, host string) (release func(), err error) {
	l, err := g.join(host)
	if err != nil {
		return nil, err
	}
	select {
	case l.places <- struct{}{}:
		return func() { <-l.places; g.leave(host, l) }, nil
	case <-ctx.Done():
		g.leave(host, l)
		return nil, fmt.Errorf("%d pull secrets are being verified for %s: %w", maxVerifications, host, context.Cause(ctx))
	}
}

func (g *grants) join(host string) (*line, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l, ok := g.lines[host]
	if !ok {
		l = &line{places: make(chan struct{}, maxVerifications)}
		g.lines[host] = l
	}
	if l.length >= maxVerifications+maxUnverified {
		return nil, fmt.Errorf("%d pull secrets wait to be verified for %s: %w", maxUnverified, host, errdefs.ErrUnavailable)
	}
	l.length++
	return l, nil
}

func (g *grants) leave(host string, l *line) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.length--; l.length == 0 {
		delete(g.lines, host)
	}
}
