package credentials

import (
	"cmp"
	"context"
	"slices"
)

// hubKey is the key of an answer that holds for Docker Hub's images when no
// other does.
const hubKey = "index.docker.io"

// kubelet is the kubelet's credential provider plugins.
type kubelet struct {
	plugins []*plugin
	log     *reporter
}

// offer is one entry of a plugin's answer.
type offer struct {
	key string
	answer
}

// find implements source. All plugins that serve the image are asked; of their
// entries that match it, the longest key is taken, and the earlier plugin's if
// two have the same.
func (s *kubelet) find(ctx context.Context, q query) (answer, error) {
	var offers []offer
	var errs []error
	for _, p := range s.plugins {
		if !p.serves(q) {
			continue
		}
		g, refuse, err := p.grant(ctx, q)
		errs = append(errs, err)
		for key, cred := range g.auths {
			if err == nil && fits(key, q) && !cred.IsZero() {
				offers = append(offers, offer{key, answer{cred, refuse}})
			}
		}
	}
	err := join(errs)
	if len(offers) == 0 {
		return answer{}, err
	}
	if err != nil {
		s.log.warn("kubelet "+q.host+err.Error(), "credential source failed, another one is used", "upstream", q.host, "err", err)
	}
	// Backwards by key, as the kubelet tries them: longer before shorter ones,
	// and plain before wildcard ones. Docker Hub's general entry comes last.
	slices.SortStableFunc(offers, func(a, b offer) int {
		return cmp.Or(cmp.Compare(rank(a.key, q), rank(b.key, q)), cmp.Compare(b.key, a.key))
	})
	return offers[0].answer, nil
}

func rank(key string, q query) int {
	if key == hubKey && q.host == dockerHub {
		return 1
	}
	return 0
}

// fits reports whether an entry holds for an image.
func fits(key string, q query) bool {
	if key == hubKey && q.host == dockerHub {
		return true
	}
	p, err := parsePattern(key)
	return err == nil && p.match(q.image())
}
