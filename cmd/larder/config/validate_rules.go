package config

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes"
)

func (c *Config) checkRules(fs *findings) {
	first := map[string]string{}
	for i, r := range c.Rules {
		path := fmt.Sprintf("rules[%d]", i)
		twinFindings(fs, first, path+".ecr_repository_prefix", r.ECRRepositoryPrefix)
		checkPolicy(fs, path, r.Settings)
		unset := map[string]bool{
			"ecr_repository_prefix": r.ECRRepositoryPrefix == "",
			"upstream_registry_url": r.UpstreamRegistryURL == "",
		}
		remoteFindings(fs, path, r.Remote().Problems(), func(field string) string {
			switch {
			case unset[field]:
				return "must be set"
			case field == "upstream_registry_url" && mayHoldCredential(r.UpstreamRegistryURL):
				return errCredential().Error()
			}
			return ""
		})
	}
	c.checkGoverned(fs)
}

// checkGoverned finds settings that never hold: of rules that lead to the same
// repositories, one governs them. Left alone, a deny would look as if it worked.
func (c *Config) checkGoverned(fs *findings) {
	type upstream struct{ host, prefix string }
	governing := map[upstream]int{}
	of := func(r Rule) upstream {
		prefix := strings.TrimSuffix(cmp.Or(r.UpstreamRepositoryPrefix, remotes.Root), "/")
		return upstream{host: Host(r.UpstreamRegistryURL).Canonical(), prefix: prefix}
	}
	length := func(i int) int { return len(strings.TrimSuffix(c.Rules[i].ECRRepositoryPrefix, "/")) }
	for i, r := range c.Rules {
		j, taken := governing[of(r)]
		if !taken || c.Rules[j].ECRRepositoryPrefix == remotes.Root || r.ECRRepositoryPrefix != remotes.Root && length(i) > length(j) {
			governing[of(r)] = i
		}
	}
	for i, r := range c.Rules {
		j := governing[of(r)]
		if j == i || reflect.DeepEqual(r.Settings, Settings{}) || reflect.DeepEqual(r.Settings, c.Rules[j].Settings) {
			continue
		}
		key, other := fmt.Sprintf("rules[%d].ecr_repository_prefix", i), fmt.Sprintf("rules[%d].ecr_repository_prefix", j)
		fs.add(invalid("%q: the settings of this rule never hold: rules[%d] leads to the same repositories and goes before it; say there what holds for them",
			r.ECRRepositoryPrefix, j), key, other)
	}
}

func (c *Config) checkTemplates(fs *findings) {
	first := map[string]string{}
	for i, t := range c.Templates {
		path := fmt.Sprintf("templates[%d]", i)
		twinFindings(fs, first, path+".prefix", t.Prefix)
		checkPolicy(fs, path, t.Settings)
		remoteFindings(fs, path, t.Remote().Problems(), func(field string) string {
			if field == "prefix" && t.Prefix == "" {
				return "must be set"
			}
			return ""
		})
	}
}

// twinFindings finds a prefix that stands in an earlier entry.
func twinFindings(fs *findings, first map[string]string, key, text string) {
	prefix := strings.TrimSuffix(text, "/")
	if other, taken := first[prefix]; taken {
		fs.add(invalid("%q: stands in %s already", text, other), key, other)
	} else if prefix != "" {
		first[prefix] = key
	}
}

// remoteFindings translates what package remotes finds wrong with an entry; it
// names the field at the front of each text. better has other words for some.
func remoteFindings(fs *findings, path string, problems []error, better func(field string) string) {
	for _, err := range problems {
		field, text, _ := strings.Cut(err.Error(), ": ")
		if other := better(field); other != "" {
			text = other
		}
		text = strings.TrimSuffix(text, ": "+errdefs.ErrInvalidArgument.Error())
		fs.add(invalid("%s", text), path+"."+field)
	}
}
