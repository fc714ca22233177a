package containerdconf

import (
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
)

// The names that larder has in containerd's configuration, and containerd's own.
const (
	contentName = "larder"
	diffName    = "larder-diff"
	walking     = "walking"

	contentPlugin  = "io.containerd.content.v1.content"
	diffService    = "io.containerd.service.v1.diff-service" // asked by the CRI plugin's own pull, and by ctr
	transferPlugin = "io.containerd.transfer.v1.local"       // unpacks by a list of its own
	imagesPlugin   = "io.containerd.cri.v1.images"
	oldCRIPlugin   = "io.containerd.grpc.v1.cri" // the same of 1.x
	unpackKey      = "unpack_config"
)

// effective is containerd's configuration as it comes to: what `containerd config dump` prints.
type effective map[string]any

// table finds a table by its keys. What is not there is nil, which can be read like an empty one.
func (e effective) table(keys ...string) map[string]any {
	t := map[string]any(e)
	for _, k := range keys {
		t, _ = t[k].(map[string]any)
	}
	return t
}

func (e effective) text(key string) string {
	s, _ := e[key].(string)
	return s
}

// disabled are the plugins that are off.
func (e effective) disabled() []string { return texts(e["disabled_plugins"]) }

// proxies are the proxy plugins: type and address by name.
func (e effective) proxies() map[string]proxy {
	all := map[string]proxy{}
	for name, v := range e.table("proxy_plugins") {
		t, _ := v.(map[string]any)
		p := proxy{}
		p.kind, _ = t["type"].(string)
		p.address, _ = t["address"].(string)
		all[name] = p
	}
	return all
}

type proxy struct{ kind, address string }

// differs is the order in which differs are asked, larder's put before containerd's.
func (e effective) differs() []string {
	all := slices.DeleteFunc(texts(e.table("plugins", diffService)["default"]), func(s string) bool { return s == diffName })
	at := slices.Index(all, walking)
	if at < 0 {
		at = len(all)
	}
	return slices.Insert(all, at, diffName)
}

// unpackers are the transfer service's, with larder's differ in place of containerd's. What another differ unpacks
// stays with that. There is a list of its own where the configuration has none.
func (e effective) unpackers(v Version) []map[string]any {
	all := tables(e.table("plugins", transferPlugin)[unpackKey])
	if len(all) == 0 {
		return defaultUnpackers(v)
	}
	for i, u := range all {
		u = maps.Clone(u)
		maps.DeleteFunc(u, func(_ string, v any) bool { return isEmpty(v) }) // a dump has all keys
		if d, _ := u["differ"].(string); d == "" || d == walking {
			u["differ"] = diffName
		}
		all[i] = u
	}
	return all
}

// defaultUnpackers are those that containerd has without a list: a list takes the place of all of them.
func defaultUnpackers(v Version) []map[string]any {
	all := []map[string]any{{"platform": "linux/" + runtime.GOARCH, "snapshotter": "overlayfs", "differ": diffName}}
	if v.Merges() {
		all = append(all, map[string]any{"platform": "linux(+erofs)/" + runtime.GOARCH, "snapshotter": "erofs", "differ": "erofs", "optional": true})
	}
	return all
}

// registry is the CRI plugin's table, whatever the release calls the plugin.
func (e effective) registry() map[string]any {
	if t := e.table("plugins", imagesPlugin, "registry"); t != nil {
		return t
	}
	return e.table("plugins", oldCRIPlugin, "registry")
}

// needsConfigPath reports whether config_path may be set without taking something from somebody: containerd refuses to
// start the plugin with mirrors beside it, and another folder is another's.
func (e effective) needsConfigPath() bool {
	t := e.registry()
	path, _ := t["config_path"].(string)
	mirrors, _ := t["mirrors"].(map[string]any)
	configs, _ := t["configs"].(map[string]any)
	return t != nil && len(mirrors)+len(configs) == 0 && (path == "" || len(filepath.SplitList(path)) > 1)
}

// without is e without what larder may change: two that are alike in it differ in nothing else.
func (e effective) without(v Version) effective {
	e = clone(map[string]any(e)).(map[string]any)
	delete(e, "imports")
	e["disabled_plugins"] = spelled(e.disabled(), contentPlugin)
	proxies := e.table("proxy_plugins")
	delete(proxies, contentName)
	delete(proxies, diffName)
	if len(proxies) == 0 {
		delete(e, "proxy_plugins")
	}
	if t := e.table("plugins", diffService); t != nil {
		t["default"] = spelled(e.differs(), diffName)
	}
	if t := e.table("plugins", transferPlugin); t != nil {
		t[unpackKey] = fmt.Sprint(e.unpackers(v)) // maps are printed in the order of their keys
	}
	for _, t := range []map[string]any{e.table("plugins", imagesPlugin, "registry"), e.table("plugins", oldCRIPlugin, "registry")} {
		delete(t, "config_path")
	}
	return e
}

// spelled is a list without one of it; an empty one and none are the same.
func spelled(list []string, without string) string {
	return strings.Join(slices.DeleteFunc(list, func(s string) bool { return s == without }), ", ")
}

func isEmpty(v any) bool {
	r := reflect.ValueOf(v)
	return !r.IsValid() || r.IsZero() || r.Kind() == reflect.Slice && r.Len() == 0
}

// differences are the keys in which two differ.
func differences(a, b any, path string) []string {
	am, aok := a.(map[string]any)
	bm, bok := b.(map[string]any)
	if !aok || !bok {
		if reflect.DeepEqual(a, b) {
			return nil
		}
		return []string{fmt.Sprintf("%s: %v becomes %v", path, a, b)}
	}
	keys := map[string]bool{}
	for k := range am {
		keys[k] = true
	}
	for k := range bm {
		keys[k] = true
	}
	var all []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		all = append(all, differences(am[k], bm[k], strings.TrimPrefix(path+"."+k, "."))...)
	}
	return all
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, x := range v {
			m[k] = clone(x)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, x := range v {
			l[i] = clone(x)
		}
		return l
	}
	return v
}

func texts(v any) []string {
	if l, ok := v.([]string); ok {
		return slices.Clone(l)
	}
	list, _ := v.([]any)
	var all []string
	for _, x := range list {
		if s, ok := x.(string); ok {
			all = append(all, s)
		}
	}
	return all
}

func tables(v any) []map[string]any {
	list, _ := v.([]any)
	var all []map[string]any
	for _, x := range list {
		if t, ok := x.(map[string]any); ok {
			all = append(all, t)
		}
	}
	return all
}
