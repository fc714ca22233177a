package config

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDurationText(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", time.Minute: "1m", time.Hour: "1h", 24 * time.Hour: "24h",
		90 * time.Minute: "1h30m", time.Hour + time.Second: "1h0m1s", 10 * time.Minute: "10m",
		1500 * time.Millisecond: "1.5s", 100 * time.Hour: "100h", time.Nanosecond: "1ns",
	} {
		got := Duration(d).String()
		if got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
		var back Duration
		if err := back.UnmarshalText([]byte(got)); err != nil || time.Duration(back) != d {
			t.Errorf("%q: read back as %v, %v", got, time.Duration(back), err)
		}
	}
}

func TestSizeText(t *testing.T) {
	t.Parallel()
	for s, want := range map[Size]string{
		0: "0B", 1: "1B", 1000: "1000B", 1024: "1KiB", 1025: "1025B", 3 << 19: "1536KiB",
		20 << 30: "20GiB", 1 << 62: "4096PiB", 1<<53 + 1024: "8796093022209KiB",
	} {
		got := s.String()
		if got != want {
			t.Errorf("%d: got %q, want %q", int64(s), got, want)
		}
		var back Size
		if err := back.UnmarshalText([]byte(got)); err != nil || back != s {
			t.Errorf("%q: read back as %d, %v, want %d", got, int64(back), err, int64(s))
		}
	}
	var kilo Size
	if err := kilo.UnmarshalText([]byte("1 kB")); err != nil || kilo != 1000 {
		t.Errorf("1 kB: got %d, %v", int64(kilo), err)
	}
}

func TestPercentText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Percent{"0%": 0, "70%": 70, "150%": 150} {
		var p Percent
		if err := p.UnmarshalText([]byte(text)); err != nil || p != want || p.String() != text {
			t.Errorf("%q: got %g, %v, written %q", text, float64(p), err, p)
		}
	}
}

func TestLevelSlog(t *testing.T) {
	t.Parallel()
	for l, want := range map[Level]slog.Level{
		LevelDebug: slog.LevelDebug, LevelInfo: slog.LevelInfo, LevelWarn: slog.LevelWarn, LevelError: slog.LevelError,
	} {
		if got := l.Slog(); got != want {
			t.Errorf("%s: got %v, want %v", l, got, want)
		}
	}
}

func TestAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		listen   string
		loopback bool
	}{
		"127.0.0.1:5929":          {"127.0.0.1:5929", true},
		"127.9.9.9:1":             {"127.9.9.9:1", true},
		":0":                      {"127.0.0.1:0", true},
		"localhost:1":             {"localhost:1", true},
		"[::1]:1":                 {"[::1]:1", true},
		"[::ffff:127.0.0.1]:1":    {"[::ffff:127.0.0.1]:1", true},
		"0.0.0.0:1":               {"0.0.0.0:1", false},
		"[::]:1":                  {"[::]:1", false},
		"10.0.0.1:1":              {"10.0.0.1:1", false},
		"[fe80::1%eth0]:1":        {"[fe80::1%eth0]:1", false},
		"[::ffff:192.168.0.1]:80": {"[::ffff:192.168.0.1]:80", false},
	} {
		var a Address
		if err := a.UnmarshalText([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if a.Listen() != want.listen || a.Loopback() != want.loopback {
			t.Errorf("%s: got %s, loopback %t, want %s, %t", text, a.Listen(), a.Loopback(), want.listen, want.loopback)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	names := []string{"window", "patience", "retry", "deleted", "tags"}
	for name, want := range map[string]string{
		"windw": "window", "Window": "window", "windows": "window", "patients": "patience", "tag": "tags",
		"retries": "", "ttl": "", "colour": "", strings.Repeat("w", 1<<20): "",
	} {
		if got := nearest(name, names); got != want {
			t.Errorf("%.20s: got %q, want %q", name, got, want)
		}
	}
}

func TestTOML(t *testing.T) {
	t.Parallel()
	c := Default()
	c.Mirror.SecretFile = `/it's "here"`
	text, err := c.TOML()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"root = \"/var/lib/larder\"\n", "wait = \"4s\"\n", "own = [\"localhost\"]\n", "min_speed = \"1KiB\"\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no line %q in\n%s", want, text)
		}
	}
	got, err := parse("dump", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got.Mirror.SecretFile != c.Mirror.SecretFile {
		t.Errorf("got %q, want %q", got.Mirror.SecretFile, c.Mirror.SecretFile)
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	c := sample()
	text, err := c.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Root      string
		Freshness struct {
			Window string
			Tags   []struct{ Match, Window string }
		}
		Fill struct{ Attempts int }
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.Root != "/var/lib/larder" || got.Freshness.Window != "24h" || got.Fill.Attempts != 5 ||
		len(got.Freshness.Tags) != 1 || got.Freshness.Tags[0].Window != "1h" {
		t.Errorf("got %+v from\n%s", got, text)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	if volatile("/") {
		t.Skip("the root of this machine is tmpfs, which is a warning of its own")
	}
	dir := t.TempDir()
	open, closed := filepath.Join(dir, "open"), filepath.Join(dir, "closed")
	for file, mode := range map[string]os.FileMode{open: 0o644, closed: 0o600} {
		if err := os.WriteFile(file, []byte("s3cret"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{
		"":                         "",
		closed:                     "",
		open:                       "has mode 0644",
		dir:                        "is a folder",
		filepath.Join(dir, "none"): "\"larder setup containerd\" makes it",
	} {
		c := Default()
		c.Root = "/"
		c.Mirror.SecretFile = Path(file)
		got := strings.Join(c.Warnings(), "\n")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", file, got, want)
		}
		if strings.Contains(got, "s3cret") {
			t.Errorf("%q: the secret is in %q", file, got)
		}
		c.Mirror.SecretFile, c.Upstream.Hosts = "", []UpstreamHost{{}, {ClientKeyFile: Path(file)}}
		got, _, _ = strings.Cut(got, ";") // what follows is of the node secret alone
		if key, _, _ := strings.Cut(strings.Join(c.Warnings(), "\n"), ";"); key != strings.Replace(got, "mirror.secret_file", "upstream.hosts[1].client_key_file", 1) {
			t.Errorf("%q as a key: got %q", file, key)
		}
	}
}

func TestVolatile(t *testing.T) {
	t.Parallel()
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "tmpfs" && f[1] == "/dev/shm" {
			if !volatile("/dev/shm/larder-does-not-exist/store") {
				t.Error("/dev/shm is tmpfs, and not reported")
			}
			return
		}
	}
	t.Skip("no tmpfs at /dev/shm")
}
