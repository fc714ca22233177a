package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestPins: pins of the command line, the configuration and a file, as a person
// meets them.
func TestPins(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pins")
	writeFile(t, file, "app:2 # for the nightly job\n")
	d := startDaemon(t, "[[pins]]\nname = \"docker.io/library/*-lts\"\nreason = \"base images\"\n", "[[pins]]\nname = \"localhost/docker-hub/team/tool\"\n")
	d.stop()
	d.configure(t, "pins_file = \""+file+"\"\n")
	d.run(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1})
	for _, tag := range []string{"1", "2", "3-lts"} {
		d.registry.PutImage("library/app", tag, img)
		d.mustLarder(t, "pull", "app:"+tag)
	}
	layer := img.Blobs[0].Descriptor.Digest.String()

	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"pin", "app:1", "--reason", "boot"}, "docker.io/library/app:1: pinned\n"},
		{[]string{"pin", "app:1", "--owner", "ci"}, "docker.io/library/app:1: pinned\n"},
		{[]string{"pin", "quay.io/*"}, "quay.io/*: pinned, holds for no stored image yet: patterns are for references as larder ls writes them\n"},
		{[]string{"pin", "*/app:*", "--owner", "ci"}, "*/app:*: pinned, holds for 3 stored images\n"},
		{[]string{"pin", layer}, layer + ": pinned\n"},
		{[]string{"pin", "ngnix"}, "docker.io/library/ngnix:latest: pinned, not stored yet\n"},
		{[]string{"unpin", "*/app:*", "--owner", "ci"}, "*/app:*: unpinned\n"},
	} {
		if out := d.mustLarder(t, tc.args...); out != tc.want {
			t.Errorf("%v prints %q, want %q", tc.args, out, tc.want)
		}
	}
	want := map[string]string{
		"docker.io/library/*-lts": "config 1 base images", "docker.io/library/app:2": "file 1 for the nightly job",
		"docker.io/library/ngnix:latest": "cli absent -", "docker.io/team/tool:latest": "config absent -",
		"quay.io/*": "cli 0 -", layer: "cli 0 -",
	}
	table := d.mustLarder(t, "pins")
	rows := map[string][]string{}
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		rows[f[0]] = append(rows[f[0]], line)
	}
	for name, text := range want {
		for _, word := range strings.Fields(text) {
			if len(rows[name]) != 1 || !strings.Contains(rows[name][0], word) {
				t.Errorf("pins prints %q for %s, want %q", rows[name], name, word)
			}
		}
	}
	if len(rows["docker.io/library/app:1"]) != 2 || len(rows) != len(want)+2 {
		t.Errorf("pins prints\n%s", table)
	}
	list := decodeJSON[[]remotes.PinStatus](t, d.mustLarder(t, "pins", "--json"))
	if len(list) != len(want)+2 || list[0].Name != "docker.io/library/*-lts" || list[0].Owner != "config" || list[0].Images != 1 {
		t.Errorf("pins --json: %+v", list)
	}
	if out := d.mustLarder(t, "ls"); !strings.Contains(out, "ci, cli: boot") || !strings.Contains(out, "config: base images") {
		t.Errorf("ls prints\n%s", out)
	}
	if out := d.mustLarder(t, "show", "app:3-lts"); !strings.Contains(out, "pinned      by config as docker.io/library/*-lts: base images\n") {
		t.Errorf("show prints\n%s", out)
	}
	for ref, words := range map[string]string{
		"app:1":     "by ci: larder unpin --owner ci docker.io/library/app:1",
		"app:2":     "by file (for the nightly job): take its line out of " + file,
		"app:3-lts": "by config as docker.io/library/*-lts (base images): take it out of [[pins]]",
	} {
		if code, _, stderr := d.larder(t, "rm", ref); code != exitFailure || !strings.Contains(stderr, words) {
			t.Errorf("rm %s: exit %d, %s, want %q", ref, code, stderr, words)
		}
	}
	writeFile(t, file, "app:2 x\n")
	code, _, stderr := d.larder(t, "pins")
	if code != 0 || !strings.Contains(stderr, "warning: the pin file is broken") || !strings.Contains(stderr, file+":1: ") {
		t.Errorf("pins with a broken file: exit %d, %s", code, stderr)
	}
	writeFile(t, file, "")
	d.mustLarder(t, "rm", "app:2")
	for _, args := range [][]string{{"unpin", "app:1"}, {"unpin", "app:1", "--owner", "ci"}, {"rm", "app:1"}} {
		d.mustLarder(t, args...)
	}
}

// configure puts more at the top of the daemon's configuration.
func (d *testDaemon) configure(t *testing.T, top string) {
	t.Helper()
	text, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, d.config, top+string(text))
}

// writeFile replaces a file.
func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestPinWrongUse reads what a person gets who pins wrongly.
func TestPinWrongUse(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"pin", "sha256:abc"}, `digest "sha256:abc"`},
		{[]string{"pin", "a?*"}, "'?' cannot stand in a pattern, only * is special"},
		{[]string{"pin", ""}, "want a reference, a digest or a pattern"},
		{[]string{"pin", "app", "--owner", "config"}, `owner "config" stands for pins of the configuration`},
		{[]string{"pin", "app", "--owner", "me too"}, `owner "me too": want at most 63 letters`},
		{[]string{"pin", "app", "--reason", "a\nb"}, "want one line"},
		{[]string{"unpin", "quay.io/*"}, "quay.io/* is not pinned"},
	} {
		code, _, stderr := d.larder(t, tc.args...)
		if code != exitFailure || !strings.Contains(stderr, tc.want) {
			t.Errorf("larder %q: exit %d, want %d with %q:\n%s", tc.args, code, exitFailure, tc.want, stderr)
		}
	}
	code, _, stderr := d.larder(t, "pin", "*")
	if code != 0 || !strings.Contains(stderr, "warning: * is all that is stored and will be") || !strings.Contains(stderr, "larder unpin '*'") {
		t.Errorf("pin of everything: exit %d, %s", code, stderr)
	}
}

// TestCheckOfPins: config check finds wrong pins and a wrong pin file, as serve
// would.
func TestCheckOfPins(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, cfg := filepath.Join(dir, "pins"), filepath.Join(dir, "config.toml")
	for _, tc := range []struct {
		name, config, pins string
		code               int
		want               []string
	}{
		{"good", "", "nginx\n", 0, nil},
		{"broad", "[[pins]]\nname = \"*\"\n", "*/*\n", 0, []string{"warning: a pin keeps everything: nothing can be removed, at pins[0].name, pin *\n", "at " + file + ", pin */*"}},
		{"lines", "", "a b\nnginx\nsha256:1\n", exitUsage, []string{cfg + ": pins_file: " + file + `:1: reference "a b"`, cfg + ": pins_file: " + file + `:3: digest "sha256:1"`}},
		{"value", "[[pins]]\nname = \"a?*\"\n", "", exitUsage, []string{cfg + ":3:8: pins[0].name: pattern"}},
		{"twins", "[[pins]]\nname = \"nginx\"\n[[pins]]\nname = \"nginx:latest\"\n", "", exitUsage, []string{cfg + `: pins[1].name: "nginx:latest": is what pins[0] pins already, docker.io/library/nginx:latest`}},
		{"unlisted", "[names]\nunlisted = \"deny\"\n[[pins]]\nname = \"corp.example/app\"\n", "", exitUsage, []string{cfg + ": pins[0].name: ", "not listed"}},
	} {
		writeFile(t, file, tc.pins)
		writeFile(t, cfg, "pins_file = \""+file+"\"\n"+tc.config)
		var out, errs strings.Builder
		code := run(t.Context(), []string{"config", "check", cfg}, &out, &errs)
		if code != tc.code {
			t.Errorf("%s: exit %d, want %d: %s", tc.name, code, tc.code, errs.String())
		}
		for _, want := range tc.want {
			if !strings.Contains(errs.String(), want) {
				t.Errorf("%s: got\n%s\nwant %q", tc.name, errs.String(), want)
			}
		}
	}
}

// TestServeWithoutPinFile: a daemon that does not know what is pinned does not
// start.
func TestServeWithoutPinFile(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.stop()
	file := filepath.Join(t.TempDir(), "pins")
	d.configure(t, "pins_file = \""+file+"\"\n")
	var out, errs strings.Builder
	code := run(t.Context(), []string{"serve", "--config", d.config}, &out, &errs)
	if want := d.config + ": pins_file: stat " + file + ": no such file"; code != exitUsage || !strings.Contains(errs.String(), want) {
		t.Errorf("serve: exit %d, %s, want %q", code, errs.String(), want)
	}
}
