package config

import (
	"strings"
	"testing"
)

// TestSeedChecks: what containerd is given without a copy is told where it
// contradicts the rest.
func TestSeedChecks(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"seed.enabled = true":                                                  "",
		"seed.content = \"\"":                                                  "",
		"seed.enabled = true\nseed.content = \"\"":                             "seed.content: must be set",
		"seed.enabled = true\nproxy.enabled = true":                            `seed.enabled: true: with "content" in proxy.services`,
		"seed.enabled = true\nproxy.enabled = true\nproxy.services = ['diff']": "",
		"root = \"/a/b\"\nseed.enabled = true\nseed.content = \"/a/b/c\"":      `seed.content: "/a/b/c": root is "/a/b"`,
		"root = \"/a/b\"\nseed.enabled = true\nseed.content = \"/a\"":          `seed.content: "/a": root is "/a/b"`,
		"root = \"/a/b\"\nseed.enabled = true\nseed.content = \"/a/b\"":        `seed.content: "/a/b": root is "/a/b"`,
		"root = \"/a/b\"\nseed.enabled = true\nseed.content = \"/a/b.2/c\"":    "",
	} {
		got, err := Load(write(t, text+"\n"))
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: got %v, want an error with %q", text, err, want)
		case want == "" && strings.Contains(text, "enabled = true") && !got.Seed.Enabled:
			t.Errorf("%q: not enabled", text)
		}
	}
}
