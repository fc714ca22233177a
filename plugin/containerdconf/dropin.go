package containerdconf

import (
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/larder-project/larder/plugin/internal/ownfile"
)

// fileMark begins every file that larder writes here.
const fileMark ownfile.Mark = "# larder containerd config v1 sha256:"

// The lines behind the first say what larder must know of the file later.
const (
	modePrefix = "# mode: "
	rootPrefix = "# containerd's root: "
	madeFolder = "# made with it: this folder"
)

const intro = `# %s
# containerd reads it when it starts. Take it away with: larder setup containerd --undo
# larder leaves this file alone once it is changed by hand (--force overrides).
`

// dropIn is what larder's file in containerd's conf.d says.
type dropIn struct {
	mode       Mode
	root       string // containerd's
	madeFolder bool
	configPath bool // it sets config_path
}

// document are the keys of the drop-in.
type document struct {
	Version  int                      `toml:"version"`
	Disabled []string                 `toml:"disabled_plugins,omitempty"`
	Proxies  map[string]proxyDocument `toml:"proxy_plugins"`
	Plugins  map[string]any           `toml:"plugins"`
}

type proxyDocument struct {
	Type    string `toml:"type"`
	Address string `toml:"address"`
}

// render returns the text of the drop-in for a containerd whose configuration comes to base without larder.
func (d dropIn) render(base effective, v Version, socket, certsDir string) (string, error) {
	doc := document{
		Version: v.configVersion(),
		Proxies: map[string]proxyDocument{diffName: {"diff", socket}},
		Plugins: map[string]any{
			// Both are needed: the CRI plugin's own pull and ctr ask the first, the transfer service the second.
			diffService:    map[string]any{"default": base.differs()},
			transferPlugin: map[string]any{unpackKey: base.unpackers(v)},
		},
	}
	if d.mode == Proxy {
		doc.Disabled = []string{contentPlugin} // containerd takes one content store
		doc.Proxies[contentName] = proxyDocument{"content", socket}
	}
	if d.configPath {
		doc.Plugins[imagesPlugin] = map[string]any{"registry": map[string]any{"config_path": certsDir}}
	}
	var b strings.Builder
	what := "containerd unpacks layers by larder."
	if d.mode == Proxy {
		what = "containerd has its content in larder, and unpacks layers by it."
	}
	fmt.Fprintf(&b, intro, what)
	fmt.Fprintf(&b, "%s%s\n%s%s\n", modePrefix, d.mode, rootPrefix, d.root)
	if d.madeFolder {
		b.WriteString(madeFolder + "\n")
	}
	text, err := toml.Marshal(doc)
	if err != nil {
		return "", fmt.Errorf("encode drop-in: %w", err)
	}
	b.Write(text)
	return fileMark.On(b.String()), nil
}

// parseDropIn reads what larder must know of it.
func parseDropIn(text string) (d dropIn) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if mode, ok := strings.CutPrefix(line, modePrefix); ok {
			d.mode = Mode(mode)
		}
		if root, ok := strings.CutPrefix(line, rootPrefix); ok {
			d.root = root
		}
		d.madeFolder = d.madeFolder || line == madeFolder
		d.configPath = d.configPath || strings.HasPrefix(line, "config_path = ")
	}
	return d
}
