package config

//go:generate go test -run ^TestExample$ -update .

// Config is the whole configuration of a daemon. The zero value is not valid;
// begin with [Default].
type Config struct {
	// Folder of the store. One daemon per folder; a local disk, not tmpfs.
	Root Path `toml:"root"`
	// What the daemon logs, on stderr.
	Log Log `toml:"log"`
	// The endpoint that containerd pulls from.
	Mirror Mirror `toml:"mirror"`
	// The endpoint of larder's own verbs (pull, ls, pin and so on).
	Admin Admin `toml:"admin"`
	// How image names are understood.
	Names Names `toml:"names"`
	// When a tag is checked upstream. Digests never are.
	Freshness Freshness `toml:"freshness"`
	// What belongs to an image: signatures, attestations, SBOMs.
	Companions Companions `toml:"companions"`
	// The fetch of one blob from upstream.
	Fill Fill `toml:"fill"`
	// What larder waits for upstream, and where it may connect to.
	Upstream Upstream `toml:"upstream"`
	// How the daemon ends.
	Shutdown Shutdown `toml:"shutdown"`
	// Upstreams that stand behind a registry host, in place of the host
	// itself.
	Routes []Route `toml:"routes,omitempty"`
	// ECR pull through cache rules, with ECR's own field names.
	Rules []Rule `toml:"rules,omitempty"`
}

// Log says what the daemon writes to stderr.
type Log struct {
	// debug, info, warn or error.
	Level Level `toml:"level"`
	// text (key=value) or json.
	Format Format `toml:"format"`
}

// Mirror is the endpoint that containerd pulls from.
type Mirror struct {
	// host:port to listen on. Port 0 chooses a free one and prints it.
	// An address other than loopback needs secret_file.
	Address Address `toml:"address"`
	// File with the node secret that containerd must send. Empty: none is
	// asked for on loopback.
	SecretFile Path `toml:"secret_file"`
	// Longest time that a client waits for upstream to answer before it gets
	// 503 and goes upstream itself. Below 30s, containerd's own limit.
	Wait Duration `toml:"wait"`
}

// Admin is the endpoint that larder's own verbs talk to.
type Admin struct {
	// Path of the unix socket.
	Address Path `toml:"address"`
}

// Names says how image names are understood.
type Names struct {
	// Registries that no rule or route names: allow serves them as
	// themselves, deny refuses them.
	Unlisted Unlisted `toml:"unlisted"`
	// Keep the built-in rules for the upstreams that ECR knows (docker-hub,
	// quay, kubernetes and so on). [[rules]] with the same prefix win.
	BuiltinRules bool `toml:"builtin_rules"`
	// Registry hosts that mean larder itself.
	Own []Host `toml:"own"`
	// ECR registry hosts whose repositories the rules apply to; * stands for
	// any characters.
	ECRHosts []Glob `toml:"ecr_hosts"`
}

// Freshness says when a tag is checked upstream. Digests never are.
type Freshness struct {
	// Age up to which a tag is answered from the store without asking
	// upstream. 0s: every pull asks.
	Window Duration `toml:"window"`
	// Longest time that a pull waits for such a check; then it gets the stored
	// image, and the check goes on. At most mirror.wait.
	Patience Duration `toml:"patience"`
	// First pause after a failed check. It doubles up to the window.
	Retry Duration `toml:"retry"`
	// Tag that upstream no longer has (404): serve the stored image, warn
	// (serve it and log a warning), or refuse.
	Deleted Deleted `toml:"deleted"`
	// Windows of their own for some tags. The first match wins.
	Tags []Tag `toml:"tags,omitempty"`
}

// Tag gives a window of its own to the references that match.
type Tag struct {
	// Pattern for host/repository:tag; * stands for any characters.
	Match Glob `toml:"match"`
	// As freshness.window, for these tags.
	Window Duration `toml:"window"`
}

// Companions says what becomes of the artifacts that belong to an image.
type Companions struct {
	// Fetch them behind the image, so that they are there without upstream:
	// its referrers, and cosign's tags (sha256-….sig, .att, .sbom).
	Fetch bool `toml:"fetch"`
	// Size up to which an artifact is fetched so, all its blobs together.
	MaxSize Size `toml:"max_size"`
}

// Fill bounds the fetch of one blob from upstream.
type Fill struct {
	// Time over which the speed is measured.
	Stall Duration `toml:"stall"`
	// Bytes per second below which a fill counts as stalled and is begun
	// again where it stopped.
	MinSpeed Size `toml:"min_speed"`
	// Tries in a row that bring nothing before the waiting clients get an
	// error. If no upstream answers the first try, they get it at once.
	Attempts int `toml:"attempts"`
}

// Upstream bounds what larder waits for and where it connects to.
type Upstream struct {
	// Longest time to connect.
	DialTimeout Duration `toml:"dial_timeout"`
	// Longest time from the request to the headers of the answer.
	HeaderTimeout Duration `toml:"header_timeout"`
	// Time for which an upstream is not asked after it was silent once or
	// failed five times in a row.
	Pause Duration `toml:"pause"`
	// Hosts at private addresses (host[:port], or http://host[:port]) that
	// upstreams may redirect to or name as token realm.
	Private []Endpoint `toml:"private"`
}

// Shutdown says how the daemon ends.
type Shutdown struct {
	// Longest time that running answers may take to finish.
	Timeout Duration `toml:"timeout"`
}

// Route says which upstreams stand behind a registry host.
type Route struct {
	// Registry host as in image names.
	Registry Host `toml:"registry"`
	// Upstreams in the order they are tried: host[:port][/prefix], https
	// unless written with http://. May be at private addresses.
	Upstreams []Endpoint `toml:"upstreams"`
}

// Rule is an ECR pull through cache rule, with ECR's own field names.
type Rule struct {
	// Prefix of the local repository name, 2 to 30 characters, or ROOT.
	ECRRepositoryPrefix string `toml:"ecr_repository_prefix"`
	// Host of the upstream registry, without scheme.
	UpstreamRegistryURL string `toml:"upstream_registry_url"`
	// ECR's name for the kind of upstream, for instance docker-hub. Empty:
	// inferred from the host.
	UpstreamRegistry string `toml:"upstream_registry,omitempty"`
	// Prefix of the upstream repository name. ROOT: none.
	UpstreamRepositoryPrefix string `toml:"upstream_repository_prefix,omitempty"`
}
