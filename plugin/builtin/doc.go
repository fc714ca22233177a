// Package builtin makes larder's store the content store of a containerd that is
// built with it:
//
//	import _ "github.com/larder-project/larder/plugin/builtin"
//
// It registers the plugins io.containerd.content.v1.larder and
// io.containerd.differ.v1.larder, which unpacks layers. containerd's metadata
// takes exactly one content plugin, so that its own must be off. Both stand in
// containerd's configuration, with the defaults of [Config] here:
//
//	disabled_plugins = ["io.containerd.content.v1.content"]
//
//	[plugins."io.containerd.content.v1.larder"]
//	  root = ""                # below containerd's own root
//	  max_size_percent = 30.0
//	  min_free_percent = 17.0
//	  grace = "10m"
//
// containerd unpacks by its own differ unless its two lists of differs name larder's,
// as docs/proxy.md has it.
//
// The folder example has a main program. What containerd sees of the store, and
// what it may count on, is as in package proxy; what it unpacks is as in package unpack,
// and what that does not take its own differ does. (TestPlugin, TestDiffer)
package builtin
