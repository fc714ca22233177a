package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestDefaultIsValid(t *testing.T) {
	t.Parallel()
	c := Default()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestDefaultIsOwnValue(t *testing.T) {
	t.Parallel()
	a := Default()
	a.Names.Own[0] = "changed"
	if b := Default(); b.Names.Own[0] != "localhost" {
		t.Errorf("a change of one default reached another: %q", b.Names.Own[0])
	}
}

func TestValidateZero(t *testing.T) {
	t.Parallel()
	var c Config
	err := c.Validate()
	if err == nil {
		t.Fatal("the zero Config is valid")
	}
	for _, key := range []string{"root", "mirror.address", "mirror.wait", "admin.address", "freshness.retry", "prefetch.parallel", "fill.attempts"} {
		if !strings.Contains("\n"+err.Error(), "\n"+key+": ") {
			t.Errorf("no problem of %s in:\n%s", key, err)
		}
	}
}

func TestLoadEmptyFileIsDefault(t *testing.T) {
	t.Parallel()
	got, err := Load(write(t, "# nothing\n"))
	if err != nil {
		t.Fatal(err)
	}
	if want := Default(); !reflect.DeepEqual(*got, want) {
		t.Errorf("got %+v, want %+v", *got, want)
	}
}

// Every key of the schema takes another value than its default.
func TestLoadEveryKey(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ecr-pullthroughcache/hub-a1b2c3"
	got, err := Load(write(t, `
root = "/data/larder"
log = {level = "debug", format = "json"}
mirror.address = "0.0.0.0:1"
mirror.secret_file = "/etc/larder/secret"
mirror.wait = "5.5s"
mirror.stall = "90s"
mirror.max_connections = 100
[admin]
address = "/tmp/a.sock"
[proxy]
enabled = true
services = ["diff"]
socket = "/tmp/p.sock"
containerd = "/tmp/c.sock"
grace = "1m"
copies = "1GiB"
[seed]
content = "/tmp/content" # enabled goes with no proxy: TestSeedChecks
[names]
unlisted = "deny"
builtin_rules = false
own = []
ecr_hosts = [
	"*.dkr.ecr.eu-central-1.amazonaws.com", # one region
]
[freshness]
window = "0s"
patience = "0s"
retry = "2m"
deleted = "refuse"
[[freshness.tags]]
match = "*:latest"
window = "0s"
[[freshness.tags]]
match = "docker.io/*"
window = "36h"
[private]
verified = "1m"
grace = "24h"
refused = "1s"
[companions]
fetch = false
max_size = "1MiB"
[prefetch]
enabled = false
parallel = 24
[scrub]
rate = "1MiB"
period = "1h"
max_load = "150%"
verify_on_read = "boot"
[fill]
stall = "1s"
min_speed = "1.5MiB"
attempts = 0x10
[space]
max_size = "20GiB"
min_free = "off"
high = "90%"
low = "12.5%"
[upstream]
dial_timeout = "1s"
header_timeout = "1m"
pause = "1s"
private = ["http://10.0.0.1:5000", "registry.corp"]
reserve = 0
max_connections = 4
max_speed = "10MiB"
parallel = 2
[[upstream.hosts]]
host = "[::1]:5000"
ca_file = "/ca.pem"
client_cert_file = "/cert.pem"
client_key_file = "/key.pem"
realms = ["auth.corp", "auth.corp:444"]
max_connections = 2
max_speed = "4MiB"
parallel = 3
[credentials]
docker_config = "/root/.docker/config.json"
kubelet_config = "/etc/eks/config.json"
kubelet_bin_dir = "/etc/eks"
ecr = false
[shutdown]
timeout = "0s"
[[routes]]
registry = "docker.io"
upstreams = ["http://127.0.0.1:5000", "registry-1.docker.io"]
[[rules]]
ecr_repository_prefix = "docker-hub"
upstream_registry_url = "registry-1.docker.io"
upstream_registry = "docker-hub"
credential_arn = "`+arn+`"
registry_id = "123456789012"
mode = "offline"
private = "verify"
window = "0s"
deleted = "warn"
image_tag_mutability = "MUTABLE_WITH_EXCLUSION"
image_tag_mutability_exclusion_filters = ["v*"]
allow = ["a/*", "docker.io/b"]
deny = ["*"]
[[rules]]
ecr_repository_prefix = "ecr"
upstream_registry_url = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
upstream_repository_prefix = "team"
custom_role_arn = "arn:aws:iam::123456789012:role/x"
[[rules]]
ecr_repository_prefix = "harbor"
upstream_registry_url = "harbor.internal:5000"
credential_file = "/etc/harbor.json"
[[templates]]
prefix = "docker-hub/library"
mode = "upstream-first"
window = "1m"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Root:   "/data/larder",
		Log:    Log{Level: LevelDebug, Format: FormatJSON},
		Mirror: Mirror{Address: "0.0.0.0:1", SecretFile: "/etc/larder/secret", Wait: Duration(5500 * time.Millisecond), Stall: Duration(90 * time.Second), MaxConnections: 100},
		Admin:  Admin{Address: "/tmp/a.sock"},
		Proxy:  Proxy{Enabled: true, Services: []Service{ServiceDiff}, Socket: "/tmp/p.sock", Containerd: "/tmp/c.sock", Grace: Duration(time.Minute), Copies: 1 << 30},
		Seed:   Seed{Content: "/tmp/content"},
		Names:  Names{Unlisted: UnlistedDeny, Own: []Host{}, ECRHosts: []Glob{"*.dkr.ecr.eu-central-1.amazonaws.com"}},
		Freshness: Freshness{
			Retry:   Duration(2 * time.Minute),
			Deleted: DeletedRefuse,
			Tags:    []Tag{{Match: "*:latest"}, {Match: "docker.io/*", Window: Duration(36 * time.Hour)}},
		},
		Private:    Private{Verified: Duration(time.Minute), Grace: Duration(24 * time.Hour), Refused: Duration(time.Second)},
		Companions: Companions{MaxSize: 1 << 20},
		Prefetch:   Prefetch{Parallel: 24},
		Scrub:      Scrub{Rate: 1 << 20, Period: Duration(time.Hour), MaxLoad: 150, VerifyOnRead: VerifyBoot},
		Fill:       Fill{Stall: Duration(time.Second), MinSpeed: 3 << 19, Attempts: 16},
		Space:      Space{MaxSize: Amount{Bytes: 20 << 30}, High: 90, Low: 12.5},
		Upstream: Upstream{
			DialTimeout:    Duration(time.Second),
			HeaderTimeout:  Duration(time.Minute),
			Pause:          Duration(time.Second),
			Private:        []Endpoint{"http://10.0.0.1:5000", "registry.corp"},
			MaxConnections: 4,
			MaxSpeed:       10 << 20,
			Parallel:       2,
			Hosts: []UpstreamHost{{
				Host: "[::1]:5000", CAFile: "/ca.pem", ClientCertFile: "/cert.pem", ClientKeyFile: "/key.pem",
				Realms: []Host{"auth.corp", "auth.corp:444"}, MaxConnections: 2, MaxSpeed: 4 << 20, Parallel: 3,
			}},
		},
		Credentials: Credentials{DockerConfig: "/root/.docker/config.json", KubeletConfig: "/etc/eks/config.json", KubeletBinDir: "/etc/eks"},
		Routes:      []Route{{Registry: "docker.io", Upstreams: []Endpoint{"http://127.0.0.1:5000", "registry-1.docker.io"}}},
		Rules: []Rule{{
			ECRRepositoryPrefix: "docker-hub", UpstreamRegistryURL: "registry-1.docker.io", UpstreamRegistry: "docker-hub", UpstreamRepositoryPrefix: "ROOT",
			CredentialARN: arn, RegistryID: "123456789012",
			Settings: Settings{
				Mode: ModeOffline, Private: PrivateVerify, Window: new(Duration(0)), Deleted: DeletedWarn,
				ImageTagMutability: MutableWithExclusion, ImageTagMutabilityExclusionFilters: []string{"v*"},
				Allow: []Glob{"a/*", "docker.io/b"}, Deny: []Glob{"*"},
			},
		}, {
			ECRRepositoryPrefix: "ecr", UpstreamRegistryURL: "123456789012.dkr.ecr.eu-central-1.amazonaws.com", UpstreamRepositoryPrefix: "team",
			CustomRoleARN: "arn:aws:iam::123456789012:role/x",
		}, {
			ECRRepositoryPrefix: "harbor", UpstreamRegistryURL: "harbor.internal:5000", UpstreamRepositoryPrefix: "ROOT", CredentialFile: "/etc/harbor.json",
		}},
		Templates: []Template{{Prefix: "docker-hub/library", Settings: Settings{Mode: ModeUpstreamFirst, Window: new(Duration(time.Minute))}}},
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", *got, want)
	}
}

func TestLoadUnreadable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for file, want := range map[string]string{
		filepath.Join(dir, "none.toml"):          "none.toml: no such file or directory",
		dir:                                      ": is a directory",
		write(t, strings.Repeat("#", 1<<20)+"#"): "config.toml: larger than 1MiB, this is no configuration file",
	} {
		_, err := Load(file)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.File != file || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got %v, want an *Error ending in %q", file, err, want)
		}
	}
	if _, err := Load(filepath.Join(dir, "none.toml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

// A run reports everything, in the order of the file, so that one edit is
// enough.
func TestLoadReportsAll(t *testing.T) {
	t.Parallel()
	file := write(t, `root = "store"
[log]
level = "loud"
[mirror]
wait = "1h"
[freshness]
windw = "1h"
`)
	_, err := Load(file)
	want := strings.Join([]string{
		file + `:1:8: root: "store": want an absolute path`,
		file + `:3:9: log.level: "loud": want debug, info, warn or error`,
		file + `:5:1: mirror.wait: "1h": must be less than 30s, after which containerd itself gives up`,
		file + `:7:1: freshness.windw: unknown key, did you mean window?`,
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// FuzzLoad checks that no content makes Load panic, that what it accepts is
// valid and survives a dump, and that what it refuses is an *Error.
func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile(examplePath)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	for _, seed := range []string{
		"", "[[routes]]\nregistry = \"a.b\"\nupstreams = [\"c.d\"]", "routes = [{registry = \"a.b\"}, 5]",
		"log.level = \"info\"\n[log]\n", "[a.b]\nc = 1", "names.own = [[\"a\"]]", "[freshness.tags.x]\n[[freshness.tags]]",
		"[[rules]]\n[rules.x]", "fill.attempts = 1e3", "root = \"\"\"\n/a\"\"\"", "\"\" = 1", "[[fill]]\r\nattempts=1\r\n",
		"root = \"/it's 'x'\"", "admin = {address = \"/a\\\"b\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse("f", data)
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("loaded, but not valid: %v", err)
		}
		text, err := c.TOML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse("f", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !reflect.DeepEqual(c, again) {
			t.Fatalf("loaded %+v, dumped\n%s\nloaded again %+v", c, text, again)
		}
	})
}
