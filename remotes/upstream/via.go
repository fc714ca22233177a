package upstream

import (
	"context"
	"regexp"
	"slices"
	"strings"
)

// maxHops bounds how many larders before this one are passed on.
const maxHops = 16

// ownHop is a larder in a Via header. Others are nobody's business upstream.
var ownHop = regexp.MustCompile(`^1\.[01] ` + idPrefix + `[a-z0-9]{1,64}$`)

// idPrefix begins every Pool.ID.
const idPrefix = "larder-"

type viaKey struct{}

// WithVia tells requests made with the context through which larders the
// client's request came, by its Via headers: they are passed on, so that a
// loop over several larders ends where it closes.
func WithVia(ctx context.Context, via []string) context.Context {
	var hops []string
	for hop := range strings.SplitSeq(strings.Join(via, ","), ",") {
		if hop = strings.TrimSpace(hop); ownHop.MatchString(hop) && !slices.Contains(hops, hop) {
			hops = append(hops, hop)
		}
	}
	if len(hops) == 0 {
		return ctx
	}
	return context.WithValue(ctx, viaKey{}, strings.Join(hops[max(0, len(hops)-maxHops):], ", "))
}

// viaOf is the Via header of a request: those before, then larder itself.
func viaOf(ctx context.Context, own string) string {
	if before, ok := ctx.Value(viaKey{}).(string); ok {
		return before + ", " + own
	}
	return own
}
