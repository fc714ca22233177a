package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"

	"github.com/larder-project/larder/plugin/internal/ownfile"
)

// DefaultContainerdConfig is containerd's main config file.
const DefaultContainerdConfig = "/etc/containerd/config.toml"

// registryConfig is what containerd's config says about registries, in larder's reading of it.
type registryConfig struct {
	version    int
	configPath string
	lostIn     string   // the imported file that may take config_path away, or ""
	mirrors    []string // hosts with a `mirrors` entry
	tls        []string // hosts with a `configs.….tls` entry
}

// InspectConfig reads containerd's config file path, with the files that it imports, and tells what keeps
// containerd from reading hosts.toml files in certsDir: config_path missing, elsewhere, a list or lost to an import, or the
// old mirrors beside it. A file that does not exist is a finding and no error. It changes nothing.
func InspectConfig(path, certsDir string) ([]Finding, error) {
	if path == "" {
		path = DefaultContainerdConfig
	}
	if certsDir == "" {
		certsDir = DefaultCertsDir
	}
	certsDir = filepath.Clean(certsDir)
	rc, err := readRegistryConfig(path)
	if errors.Is(err, fs.ErrNotExist) {
		return []Finding{{
			Path:    path,
			Problem: "there is no such file, and with its built-in config_path containerd 2.x does not read certs.d on its usual pull path",
			Fix:     fix(0, certsDir),
		}}, nil
	}
	if err != nil {
		return nil, err
	}
	var found []Finding
	add := func(fix, format string, args ...any) {
		found = append(found, Finding{Path: path, Problem: fmt.Sprintf(format, args...), Fix: fix})
	}
	switch roots := filepath.SplitList(rc.configPath); {
	case len(roots) == 0:
		add(fix(rc.version, certsDir), "config_path is not set, so containerd does not read hosts.toml files on its usual pull path")
	case len(roots) > 1:
		add(fix(rc.version, certsDir), "config_path = %q is a list, which containerd 2.x ignores silently on its usual pull path", rc.configPath)
	case filepath.Clean(roots[0]) != certsDir:
		add(fmt.Sprintf("write there with --certs-d %s, or:\n%s", roots[0], fix(rc.version, certsDir)),
			"config_path = %q is another folder than %s", rc.configPath, certsDir)
	}
	if rc.lostIn != "" {
		found = append(found, Finding{
			Path: rc.lostIn,
			Problem: fmt.Sprintf("it has the table of plugins.%q and no config_path; containerd before 2.4 takes the whole table from this file, "+
				"and nothing of it from %s", pluginTable(rc.version), path),
			Fix: fix(rc.version, certsDir),
		})
	}
	if len(rc.mirrors) > 0 {
		add("remove the mirrors tables, move what they say into hosts.toml files, and restart containerd",
			"registry.mirrors (%s) and config_path exclude each other: containerd refuses to pull for Kubernetes with both", strings.Join(rc.mirrors, ", "))
	}
	if len(rc.tls) > 0 {
		add("remove the tls tables, move what they say into hosts.toml files, and restart containerd",
			"registry.configs with tls (%s) and config_path exclude each other: containerd 1.x refuses to pull for Kubernetes with both", strings.Join(rc.tls, ", "))
	}
	return found, nil
}

// fix returns the lines to put into containerd's config. Version 0 stands for unknown.
func fix(version int, certsDir string) string {
	table := func(plugin string) string {
		return fmt.Sprintf("  [plugins.%q.registry]\n    config_path = %q", plugin, certsDir)
	}
	const restart = "\nand restart containerd"
	switch {
	case version == 2:
		return "set:\n" + table(pluginTable(2)) + restart
	case version > 2:
		return "set:\n" + table(pluginTable(3)) + restart
	}
	return "for containerd 2.x (version = 3) set:\n" + table(pluginTable(3)) +
		"\nfor containerd 1.x (version = 2) set:\n" + table(pluginTable(2)) + restart
}

// pluginTable names the plugin that holds the registry settings in a config file of version.
func pluginTable(version int) string {
	switch {
	case version <= 1:
		return "cri"
	case version == 2:
		return "io.containerd.grpc.v1.cri"
	}
	return "io.containerd.cri.v1.images"
}

// configFile is the part of containerd's config that larder reads. Other keys are containerd's business.
type configFile struct {
	Version int            `toml:"version"`
	Imports []string       `toml:"imports"`
	Plugins map[string]any `toml:"plugins"` // other plugins may hold anything
}

// registryTable is a plugin's registry table.
type registryTable struct {
	ConfigPath string         `toml:"config_path"`
	Mirrors    map[string]any `toml:"mirrors"`
	Configs    map[string]struct {
		TLS map[string]any `toml:"tls"`
	} `toml:"configs"`
}

// readRegistryConfig reads path and what it imports, later files over earlier ones as containerd does.
func readRegistryConfig(path string) (registryConfig, error) {
	var rc registryConfig
	mirrors, tls := map[string]bool{}, map[string]bool{}
	seen := map[string]bool{}
	for pending := []string{path}; len(pending) > 0; pending = pending[1:] {
		name := pending[0]
		if seen[name] {
			continue
		}
		seen[name] = true
		cf, err := readConfigFile(name)
		if err != nil {
			return rc, err
		}
		if cf.Version == 0 {
			cf.Version = rc.version
		}
		if name == path {
			rc.version = cf.Version
		}
		registry, there, err := cf.registry()
		if err != nil {
			return rc, fmt.Errorf("%s: %w", name, err)
		}
		switch {
		case registry.ConfigPath != "":
			rc.configPath, rc.lostIn = registry.ConfigPath, ""
		case there && rc.configPath != "" && cf.Version == 2:
			// A file of version 3 is left alone: larder cannot tell 2.4 from the ones before it.
			rc.lostIn = name
		}
		for host := range registry.Mirrors {
			mirrors[host] = true
		}
		for host, c := range registry.Configs {
			if len(c.TLS) > 0 {
				tls[host] = true
			}
		}
		pending = append(pending, imports(name, cf.Imports)...)
	}
	rc.mirrors = slices.Sorted(maps.Keys(mirrors))
	rc.tls = slices.Sorted(maps.Keys(tls))
	return rc, nil
}

// registry returns the registry table of the plugin that containerd reads for the file's version, or an empty one, and
// whether the file has any table of that plugin.
func (cf configFile) registry() (t registryTable, there bool, err error) {
	plugin, there := cf.Plugins[pluginTable(cf.Version)].(map[string]any)
	table, ok := plugin["registry"].(map[string]any)
	if !ok {
		return t, there, nil
	}
	data, err := toml.Marshal(table)
	if err == nil {
		err = toml.Unmarshal(data, &t)
	}
	if err != nil {
		return t, there, fmt.Errorf("plugins.%q.registry: %w: %w", pluginTable(cf.Version), err, errdefs.ErrInvalidArgument)
	}
	return t, there, nil
}

func readConfigFile(path string) (configFile, error) {
	var cf configFile
	data, err := os.ReadFile(path)
	if err != nil {
		return cf, ownfile.Explain(path, err)
	}
	if err := toml.Unmarshal(data, &cf); err != nil {
		return cf, fmt.Errorf("%s: containerd's config: %w: %w", path, err, errdefs.ErrInvalidArgument)
	}
	return cf, nil
}

// imports resolves the import patterns of the file parent. A pattern that matches nothing is no error.
func imports(parent string, patterns []string) []string {
	var all []string
	for _, p := range patterns {
		if !filepath.IsAbs(p) {
			p = filepath.Join(filepath.Dir(parent), p)
		}
		matches, _ := filepath.Glob(p) // a bad pattern is containerd's to complain about
		all = append(all, matches...)
	}
	return all
}
