package hosts

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/larder-project/larder/plugin/internal/ownfile"
)

// fileMark begins every file that larder writes here.
const fileMark ownfile.Mark = "# larder hosts.toml v1 sha256:"

// madeFolder and madeCertsDir are comment lines that remember what Undo has to take away besides the file.
const (
	madeFolder   = "# made with it: this folder"
	madeCertsDir = "# made with it: the folder above"
)

// settings are all that the text of a hosts.toml depends on.
type settings struct {
	server, mirror, secret   string
	ca                       []string    // CA files in the folder
	client                   [][2]string // certificate and key files in the folder
	madeFolder, madeCertsDir bool
}

// serverOf returns the server line's value for host. Registries known to speak https get one for the reader's
// sake; for all others containerd knows better than larder (plain http, localhost).
func serverOf(host string) string {
	switch {
	case host == "docker.io":
		return "https://registry-1.docker.io"
	case host != DefaultHost && host != "localhost" && slices.Contains(DefaultRegistries(), host):
		return "https://" + host
	}
	return ""
}

// render returns the text of a hosts.toml.
//
// Every containerd from 1.6 on must accept it. Unknown keys are ignored by all of them, so dial_timeout
// (2.0 and later) is safe; an unknown capability is not: it makes the whole file void, and so "referrers",
// which only late 2.x releases know, is left out.
func render(s settings) string {
	var b strings.Builder
	b.WriteString("# containerd asks larder's mirror on this node first, and the registry itself when that does not answer.\n")
	b.WriteString("# Take it away with: larder setup containerd --undo\n")
	b.WriteString("# larder leaves this file alone once it is changed by hand (--force overrides).\n")
	if s.madeFolder {
		b.WriteString(madeFolder + "\n")
	}
	if s.madeCertsDir {
		b.WriteString(madeCertsDir + "\n")
	}
	if s.server != "" {
		fmt.Fprintf(&b, "server = %s\n", quote(s.server))
	}
	// containerd stops to look for certificate files by itself as soon as there is a hosts.toml.
	if len(s.ca) > 0 {
		fmt.Fprintf(&b, "ca = [%s]\n", quoteAll(s.ca))
	}
	if len(s.client) > 0 {
		pairs := make([]string, len(s.client))
		for i, p := range s.client {
			pairs[i] = "[" + quoteAll(p[:]) + "]"
		}
		fmt.Fprintf(&b, "client = [%s]\n", strings.Join(pairs, ", "))
	}
	fmt.Fprintf(&b, "\n[host.%s]\n", quote(s.mirror))
	b.WriteString("  capabilities = [\"pull\", \"resolve\"]\n")
	b.WriteString("  dial_timeout = \"2s\"\n")
	if s.secret != "" {
		fmt.Fprintf(&b, "  [host.%s.header]\n", quote(s.mirror))
		fmt.Fprintf(&b, "    %s = [%s]\n", SecretHeader, quote(s.secret))
	}
	return fileMark.On(b.String())
}

// mark is what a file's text tells of its origin.
type mark struct {
	ours, edited             bool
	madeFolder, madeCertsDir bool
}

// parseMark tells whether larder wrote text, and whether it is still as larder wrote it.
func parseMark(text string) mark {
	ours, edited := fileMark.Parse(text)
	if !ours {
		return mark{}
	}
	lines := strings.Split(text, "\n")
	return mark{
		ours:         true,
		edited:       edited,
		madeFolder:   slices.Contains(lines, madeFolder),
		madeCertsDir: slices.Contains(lines, madeCertsDir),
	}
}

// quote returns s as a TOML basic string: each JSON string is one.
func quote(s string) string {
	q, _ := json.Marshal(s) // a string always marshals
	return string(q)
}

func quoteAll(all []string) string {
	quoted := make([]string, len(all))
	for i, s := range all {
		quoted[i] = quote(s)
	}
	return strings.Join(quoted, ", ")
}
