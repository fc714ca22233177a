package parts

import (
	"cmp"
	"fmt"
	"runtime"
	"strings"
)

// ContainerdOptions vary the configuration.
type ContainerdOptions struct {
	// Release runs containerd-<Release> and ctr-<Release> in place of containerd
	// and ctr, which are of 2.x, and the shim that is in the folder of its name. It is taken for one of 1.x, whose configuration
	// has version 2 and none of LocalPull and ChunkSize: its CRI plugin always
	// pulls by itself.
	Release string
	// CertsDir is the registry config_path of the CRI plugin: one root. Where it
	// is "", a containerd 1.x has no registry table at all.
	CertsDir string
	// LocalPull sets use_local_image_pull: the CRI plugin then pulls by itself
	// and not through the transfer service.
	LocalPull bool
	// ChunkSize in bytes lets the CRI plugin's own pull fetch one layer in
	// chunks, over as many connections as Downloads; 0 is containerd's default.
	ChunkSize, Downloads int
	// SandboxImage is what each pod's sandbox runs; "" is containerd's default.
	SandboxImage string
	// Proxy is the socket of larder's proxy plugins, which take the places of
	// containerd's own content store and, before it, of its differ; "": they do
	// not.
	Proxy string
	// Content is the socket of a larder that is the content store and not the differ.
	Content string
	// Differ is the socket of a larder that unpacks beside containerd's own content
	// store; "": none does. Proxy says both.
	Differ string
	// Builtin runs the containerd that has larder's store and differ built in, and has
	// it log in detail.
	Builtin bool
	// Imports are config files that are read behind this one.
	Imports []string
	// Extra tables, as TOML.
	Extra string
	// Env are environment entries.
	Env []string
}

// Plugins that reach outside the private folder (nri, opt) or only cost time
// and log lines are off.
const containerdConfig = `version = %[1]d
root = %[2]q
state = %[3]q
temp = %[4]q
imports = [%[5]s]
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
%[8]s]
[grpc]
  address = %[6]q
[ttrpc]
  address = %[7]q
`

// The CRI plugin's tables of containerd 2.x.
const criConfig = `[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  use_local_image_pull = %[1]t
  concurrent_layer_fetch_buffer = %[2]d
  max_concurrent_downloads = %[3]d
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %[4]q
[plugins."io.containerd.cri.v1.images".registry]
  config_path = %[5]q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [%[6]q]
  conf_dir = %[6]q
`

// The CRI plugin's tables of containerd 1.x, but for its registries.
const oldCRIConfig = `[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %[1]q
  max_concurrent_downloads = %[2]d
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = %[3]q
  conf_dir = %[3]q
`

const oldRegistryConfig = `[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = %q
`

const contentConfig = `[proxy_plugins.larder]
  type = "content"
  address = %[1]q
`

const proxyDifferConfig = `[proxy_plugins.larder-diff]
  type = "diff"
  address = %[1]q
`

// A differ of larder's, for all that pulls: ctr and the CRI plugin by themselves ask
// the diff service, the transfer service has a list of its own.
const differConfig = `[plugins."io.containerd.service.v1.diff-service"]
  default = [%[1]q, "walking"]
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/` + runtime.GOARCH + `"
  snapshotter = "overlayfs"
  differ = %[1]q
`

const builtinConfig = `[debug]
  level = "debug"
[plugins."io.containerd.content.v1.larder"]
  max_size_percent = 0.0
  min_free_percent = 0.0
`

// configText is the text of containerd's config file.
func (c *Containerd) configText(o ContainerdOptions) string {
	version := 3
	downloads := cmp.Or(o.Downloads, 3)
	text := fmt.Sprintf(criConfig, o.LocalPull, o.ChunkSize, downloads, o.SandboxImage, o.CertsDir, c.path("cni"))
	if o.Release != "" {
		version = 2
		text = fmt.Sprintf(oldCRIConfig, o.SandboxImage, downloads, c.path("cni"))
		if o.CertsDir != "" {
			text += fmt.Sprintf(oldRegistryConfig, o.CertsDir)
		}
	}
	imports := make([]string, len(o.Imports))
	for i, file := range o.Imports {
		imports[i] = fmt.Sprintf("%q", file)
	}
	disabled := ""
	content := cmp.Or(o.Proxy, o.Content)
	if content != "" || o.Builtin {
		disabled = "  \"io.containerd.content.v1.content\",\n"
	}
	if content != "" {
		text += fmt.Sprintf(contentConfig, content)
	}
	if differ := cmp.Or(o.Proxy, o.Differ); differ != "" {
		text += fmt.Sprintf(proxyDifferConfig, differ) + fmt.Sprintf(differConfig, "larder-diff")
	}
	if o.Builtin {
		text += builtinConfig + fmt.Sprintf(differConfig, "larder")
	}
	head := fmt.Sprintf(containerdConfig, version, c.path("root"), c.path("state"), c.path("tmp"),
		strings.Join(imports, ", "), c.Address(), c.Address()+".ttrpc", disabled)
	return head + text + o.Extra
}
