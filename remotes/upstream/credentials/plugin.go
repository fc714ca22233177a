package credentials

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

// scope says for which images a plugin's answer holds: what the protocol calls
// cacheKeyType.
type scope string

const (
	scopeImage    scope = "Image"
	scopeRegistry scope = "Registry"
	scopeGlobal   scope = "Global"
)

// plugin is one of the kubelet's credential provider plugins.
type plugin struct {
	name    string
	program program
	match   []pattern
	life    time.Duration // of answers that do not say theirs
	answers *memory[grant]
	last    atomic.Value // scope of its last answer: under what to look for the next
}

// grant is an answer of a plugin.
type grant struct {
	asked query
	scope scope
	auths map[string]upstream.Credential // by image pattern
}

func newPlugin(name string, p program, match []pattern, life time.Duration, log *reporter) *plugin {
	pl := &plugin{
		name: name, program: p, match: match, life: life,
		answers: newMemory[grant]("kubelet credential provider "+name, programLimit, log),
	}
	pl.last.Store(scopeRegistry)
	return pl
}

// serves reports whether the plugin is to be asked for an image.
func (p *plugin) serves(q query) bool {
	for _, m := range p.match {
		if m.match(q.image()) {
			return true
		}
	}
	return false
}

// grant returns what the plugin says for an image. Under which key that is
// remembered, only the answer tells: the last one's is tried, so that many who
// ask at once run it once.
func (p *plugin) grant(ctx context.Context, q query) (grant, func(), error) {
	within, _ := p.last.Load().(scope)
	g, refuse, err := p.answers.get(ctx, q.key(within), p.question(q))
	if err == nil && !g.holds(q) {
		// It holds for the image or host of whoever asked first.
		g, refuse, err = p.answers.get(ctx, q.key(g.scope), p.question(q))
	}
	if err == nil && !g.holds(q) {
		err = fmt.Errorf("kubelet credential provider %s: changes its cacheKeyType all the time: %w", p.name, errdefs.ErrUnavailable)
	}
	return g, refuse, err
}

// key is under what an answer of some scope is remembered.
func (q query) key(s scope) string {
	switch s {
	case scopeGlobal:
		return "*"
	case scopeRegistry:
		return q.host
	}
	return q.image()
}

// holds reports whether the answer is one for an image.
func (g grant) holds(q query) bool {
	switch g.scope {
	case scopeGlobal:
		return true
	case scopeRegistry:
		return g.asked.host == q.host
	}
	return g.asked == q
}

func (p *plugin) question(q query) ask[grant] {
	return func(ctx context.Context) (grant, time.Duration, error) {
		g, life, err := p.ask(ctx, q)
		if err != nil {
			return grant{}, 0, fmt.Errorf("kubelet credential provider %s: %w", p.name, err)
		}
		p.last.Store(g.scope)
		return g, life, nil
	}
}

// ask runs the plugin as the kubelet does.
func (p *plugin) ask(ctx context.Context, q query) (grant, time.Duration, error) {
	request, err := json.Marshal(map[string]string{"kind": "CredentialProviderRequest", "apiVersion": pluginVersion, "image": q.image()})
	if err != nil {
		return grant{}, 0, err
	}
	out, err := p.program.run(ctx, request)
	if err != nil {
		return grant{}, 0, err
	}
	var said struct {
		Kind, APIVersion string
		CacheKeyType     scope
		CacheDuration    *string
		Auth             map[string]struct{ Username, Password string }
	}
	if err := json.Unmarshal(out, &said); err != nil {
		return grant{}, 0, fmt.Errorf("wrote no JSON: %w", errdefs.ErrInvalidArgument)
	}
	life := p.life
	if said.CacheDuration != nil {
		life, err = time.ParseDuration(*said.CacheDuration)
	}
	switch {
	case said.Kind != "CredentialProviderResponse" || said.APIVersion != pluginVersion:
		return grant{}, 0, fmt.Errorf("wrote no CredentialProviderResponse of %s: %w", pluginVersion, errdefs.ErrInvalidArgument)
	case said.CacheKeyType != scopeImage && said.CacheKeyType != scopeRegistry && said.CacheKeyType != scopeGlobal:
		return grant{}, 0, fmt.Errorf("its cacheKeyType is none of Image, Registry and Global: %w", errdefs.ErrInvalidArgument)
	case err != nil:
		return grant{}, 0, fmt.Errorf("its cacheDuration is no duration: %w", errdefs.ErrInvalidArgument)
	}
	g := grant{asked: q, scope: said.CacheKeyType, auths: map[string]upstream.Credential{}}
	for key, a := range said.Auth {
		g.auths[authKey(key)] = upstream.Credential{Username: a.Username, Secret: a.Password}
	}
	return g, life, nil
}

// authKey is a key of an answer as a pattern: without a scheme, and without the
// /v1/ and /v2/ that stand in docker's files.
func authKey(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, path, _ := strings.Cut(key, "/")
	if rest, ok := strings.CutPrefix(path+"/", "v1/"); ok {
		path = strings.TrimSuffix(rest, "/")
	} else if rest, ok := strings.CutPrefix(path+"/", "v2/"); ok {
		path = strings.TrimSuffix(rest, "/")
	}
	if path == "" {
		return host
	}
	return host + "/" + path
}
