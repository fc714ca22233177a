package config

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// TestErrorTexts compares what a user reads with testdata/errors.txt. There,
// each case is "=== name", a file, "---", and the lines that it causes.
func TestErrorTexts(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/errors.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases := strings.Split("\n"+string(data), "\n=== ")[1:]
	if len(cases) < 70 {
		t.Fatalf("testdata/errors.txt has %d cases only", len(cases))
	}
	for _, text := range cases {
		name, rest, _ := strings.Cut(text, "\n")
		file, want, ok := strings.Cut(rest, "---\n")
		if !ok {
			t.Fatalf("%s: no --- line", name)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkErrorText(t, file, strings.TrimSpace(want))
		})
	}
}

// These files cannot stand in a text file.
func TestErrorTextsOfOddFiles(t *testing.T) {
	t.Parallel()
	long := "/" + strings.Repeat("a", maxSocketPath)
	for file, want := range map[string]string{
		"root = \"/a\x01\"":                  `config.toml:1:11: basic strings cannot have control characters`,
		"root = \"/a\xff\"":                  `config.toml:1:11: invalid UTF-8 character in basic string`,
		"[admin]\naddress = \"" + long + `"`: `config.toml:2:1: admin.address: "` + long + `": has 108 bytes, a socket's path may have 107`,
		"[log]\r\nlevel = \"loud\"\r\n":      `config.toml:2:9: log.level: "loud": want debug, info, warn or error`,
		"root = \"/a\\u0000\"":               `config.toml:1:8: root: "/a\x00": want an absolute path`,
	} {
		checkErrorText(t, file, want)
	}
}

// A socket whose path the kernel does not take is found before it fails there
// with no more than "invalid argument".
func TestSocketPaths(t *testing.T) {
	t.Parallel()
	fits := "/" + strings.Repeat("a", maxSocketPath-1)
	for _, key := range []string{"admin.address", "proxy.socket", "proxy.containerd", "space.cri"} {
		table, name, _ := strings.Cut(key, ".")
		file := "[" + table + "]\n" + name + ` = "` + fits
		checkErrorText(t, file+`a"`, "config.toml:2:1: "+key+`: "`+fits+`a": has 108 bytes, a socket's path may have 107`)
		if _, err := parse("config.toml", []byte(file+`"`)); err != nil {
			t.Errorf("%s of 107 bytes: %v", key, err)
		}
	}
}

func checkErrorText(t *testing.T, file, want string) {
	t.Helper()
	_, err := parse("config.toml", []byte(file))
	if err == nil {
		t.Errorf("%q: no error, want\n%s", file, want)
		return
	}
	if got := err.Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if e, ok := errors.AsType[*Error](err); !ok || e.File != "config.toml" {
		t.Errorf("want an *Error with its file, got %#v", err)
	}
	if !errdefs.IsInvalidArgument(err) {
		t.Error("not an invalid argument")
	}
}
