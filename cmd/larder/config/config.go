package config

//go:generate go test -run ^TestExample$ -update .

// Config is the whole configuration of a daemon. The zero value is not valid;
// begin with [Default].
type Config struct {
	// Folder of the store. One daemon per folder; a local disk, not tmpfs.
	Root Path `toml:"root"`
	// File with a reference, digest or pattern to pin a line, "# reason" behind
	// it if you like. It is read again when it changes; while it is broken, what
	// it held before still holds. Empty: none.
	PinsFile Path `toml:"pins_file"`
	// What the daemon logs, on stderr.
	Log Log `toml:"log"`
	// The endpoint that containerd pulls from.
	Mirror Mirror `toml:"mirror"`
	// The endpoint of larder's own verbs (pull, ls, pin and so on).
	Admin Admin `toml:"admin"`
	// larder as containerd's content store, or as what unpacks for it: its proxy
	// plugins.
	Proxy Proxy `toml:"proxy"`
	// Stored images given to containerd's own content store without a copy.
	Seed Seed `toml:"seed"`
	// How image names are understood.
	Names Names `toml:"names"`
	// When a tag is checked upstream. Digests never are.
	Freshness Freshness `toml:"freshness"`
	// How long it is remembered whom upstream lets have what is private
	// (private = "verify" of a rule).
	Private Private `toml:"private"`
	// What belongs to an image: signatures, attestations, SBOMs.
	Companions Companions `toml:"companions"`
	// The blobs of an image that a client begins to pull.
	Prefetch Prefetch `toml:"prefetch"`
	// The fetch of one blob from upstream.
	Fill Fill `toml:"fill"`
	// The store's disk, and what may not be removed from it.
	Space Space `toml:"space"`
	// The slow reading of the whole store that finds what the disk has damaged.
	Scrub Scrub `toml:"scrub"`
	// What larder waits for upstream, and where it may connect to.
	Upstream Upstream `toml:"upstream"`
	// Where credentials for upstreams come from, besides single rules.
	Credentials Credentials `toml:"credentials"`
	// How the daemon ends.
	Shutdown Shutdown `toml:"shutdown"`
	// Upstreams that stand behind a registry host, in place of the host
	// itself.
	Routes []Route `toml:"routes,omitempty"`
	// ECR pull through cache rules, with ECR's own field names.
	Rules []Rule `toml:"rules,omitempty"`
	// Settings for the repositories below a prefix, whatever rule leads there:
	// ECR's repository creation templates. The longest prefix holds. Where a
	// rule says something else, the longer prefix of both counts. All keys
	// but prefix are as in a rule, from mode on.
	Templates []Template `toml:"templates,omitempty"`
	// Images that are never removed, however full the disk is, besides those
	// of pins_file and larder pin.
	Pins []Pin `toml:"pins,omitempty"`
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
	// Longest time that a client may read nothing of what is sent to it; then
	// it is cut. 0s: for ever.
	Stall Duration `toml:"stall"`
	// Connections at a time; clients above are answered 503 or reset. 0: as many
	// as the process's limit of open files allows.
	MaxConnections int `toml:"max_connections"`
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
	// ECR registry hosts on which the built-in rules hold, too; * stands for
	// any characters. On the others only [[rules]] do: github/app may be a
	// repository of the account's own there.
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

// Private says how long it is remembered whom upstream lets have what is
// private.
type Private struct {
	// Time for which a pull secret that upstream accepted is not asked about
	// again.
	Verified Duration `toml:"verified"`
	// Time, from when upstream last accepted it, for which it is good while
	// upstream does not answer. At least verified.
	Grace Duration `toml:"grace"`
	// Time for which a pull secret that upstream refused is not asked about
	// again. At most verified.
	Refused Duration `toml:"refused"`
}

// Companions says what becomes of the artifacts that belong to an image.
type Companions struct {
	// Fetch them behind the image, so that they are there without upstream:
	// its referrers, and cosign's tags (sha256-….sig, .att, .sbom).
	Fetch bool `toml:"fetch"`
	// Size up to which an artifact is fetched so, all its blobs together. All
	// artifacts of an image together may have four times as much.
	MaxSize Size `toml:"max_size"`
}

// Prefetch says whether the blobs of an image are brought ahead of who pulls it.
type Prefetch struct {
	// Bring all blobs of an image when a client asks for one of its layers, and do
	// not wait until it asks for each: it asks for few at a time. Blobs that the
	// client has already come as well, so that the stored image is whole.
	Enabled bool `toml:"enabled"`
	// Blobs of one image that are on their way at a time. All images together take
	// at most half of what upstream.max_connections leaves for blobs.
	Parallel int `toml:"parallel"`
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

// Proxy says how larder is containerd's content store.
type Proxy struct {
	// Serve containerd's proxy plugins. A containerd that has its content in
	// larder needs larder for every new pod.
	Enabled bool `toml:"enabled"`
	// Which: ["content", "diff"] (larder is its content store, and unpacks
	// layers), or ["diff"] (it keeps its own content store, and larder unpacks).
	Services []Service `toml:"services"`
	// Unix socket that containerd's configuration names. Root alone may open it.
	Socket Path `toml:"socket"`
	// Unix socket of that containerd. After the store's index was lost it is
	// asked what it counts on; with ["diff"] it is asked for layers to unpack
	// that are not in the store.
	Containerd Path `toml:"containerd"`
	// How long a blob stays that containerd has deleted, for those who read it.
	Grace Duration `toml:"grace"`
	// Disk space for copies of layers that were unpacked, which are unpacked
	// faster the next time: a copy takes about a third more than a gzip layer,
	// and those used last stay. Beside space.max_size. 0B: no copies.
	Copies Size `toml:"copies"`
}

// Seed says how stored images are given to containerd without a copy.
type Seed struct {
	// Link the blobs of a stored image into containerd's content when containerd
	// asks for its manifest: its pull is then one HEAD, and the disk has one copy.
	// root and content have to be on one file system. Not together with
	// "content" in proxy.services.
	Enabled bool `toml:"enabled"`
	// containerd's content folder. It is never made.
	Content Path `toml:"content"`
}

// Space says how much room the store may take, and what may not be removed
// from it.
type Space struct {
	// What the store may take at most: a size, or a share of its file system;
	// "off": no bound.
	MaxSize Amount `toml:"max_size"`
	// What is to stay free of the file system for others, whoever has filled
	// the rest. The kubelet begins to delete images when less than 15% is free:
	// stay above that.
	MinFree Amount `toml:"min_free"`
	// Share of what these two allow, beyond which larder evicts what was used
	// least.
	High Percent `toml:"high"`
	// Share of it down to which larder evicts then.
	Low Percent `toml:"low"`
	// Unix socket of the container runtime (CRI), which is asked for the images
	// that pods use; containerd's is /run/containerd/containerd.sock. Empty: it
	// is not asked.
	CRI Path `toml:"cri"`
}

// Scrub says how stored blobs are read to find those that the disk has damaged.
type Scrub struct {
	// Bytes per second that are read at most. 0B: no scrub.
	Rate Size `toml:"rate"`
	// Time from the begin of one pass over the store to that of the next.
	Period Duration `toml:"period"`
	// Load of the node, in percent of its cores, above which nothing is read
	// for it. It waits for busy disks, too.
	MaxLoad Percent `toml:"max_load"`
	// When a blob is read as a whole before the first byte of it is served:
	// never, or boot (at its first use since the machine booted).
	VerifyOnRead VerifyOnRead `toml:"verify_on_read"`
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
	// Pulls that are left of what a registry says it still allows (100 in six
	// hours, say) for images that are not stored: with no more than these no
	// tag is checked.
	Reserve int `toml:"reserve"`
	// Requests to one upstream at a time, a running download being one. A
	// quarter is kept for what is not a blob. At least 2; 0: any number.
	MaxConnections int `toml:"max_connections"`
	// Bytes per second of all downloads from one upstream together. At least
	// twice fill.min_speed; 0B: any speed.
	MaxSpeed Size `toml:"max_speed"`
	// Connections for one large download at most. More than one are used only
	// where they are measured to be faster, and never with max_speed. 1: no
	// more than one.
	Parallel int `toml:"parallel"`
	// Settings of single upstreams.
	Hosts []UpstreamHost `toml:"hosts,omitempty"`
}

// UpstreamHost says how one upstream is spoken to.
type UpstreamHost struct {
	// host[:port] as in an upstream of [[routes]].
	Host Host `toml:"host"`
	// PEM file of certificates that may sign this host's, besides the
	// system's. They hold for no other host. Read at start.
	CAFile Path `toml:"ca_file,omitempty"`
	// PEM file with the certificate that is shown to this host and port only.
	// Read at start.
	ClientCertFile Path `toml:"client_cert_file,omitempty"`
	// PEM file with its key.
	ClientKeyFile Path `toml:"client_key_file,omitempty"`
	// Hosts that may get this host's credential as its token service, besides
	// itself.
	Realms []Host `toml:"realms,omitempty"`
	// As in [upstream], for this host. 0: as there.
	MaxConnections int `toml:"max_connections,omitempty"`
	// As in [upstream], for this host. 0B: as there.
	MaxSpeed Size `toml:"max_speed,omitempty"`
	// As in [upstream], for this host. 0: as there.
	Parallel int `toml:"parallel,omitempty"`
}

// Credentials says where credentials for upstreams come from, besides single
// rules. The first source that knows an upstream is used, in this order.
type Credentials struct {
	// docker's config.json: its auths, credHelpers and credsStore. Empty:
	// none, not even root's own.
	DockerConfig Path `toml:"docker_config"`
	// The kubelet's CredentialProviderConfig, YAML or JSON; on EKS
	// /etc/eks/image-credential-provider/config.json. Empty: none.
	KubeletConfig Path `toml:"kubelet_config"`
	// Folder with the plugins that kubelet_config names; on EKS
	// /etc/eks/image-credential-provider.
	KubeletBinDir Path `toml:"kubelet_bin_dir"`
	// Get tokens for Amazon ECR with the node's own AWS credentials, if it has
	// any.
	ECR bool `toml:"ecr"`
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

// Pin keeps images from being removed.
type Pin struct {
	// Reference by tag or digest, a digest alone (that manifest or layer, in
	// whatever repository), or a pattern for host/repository:tag; * stands for
	// any characters.
	Name PinName `toml:"name"`
	// Why, for those who come later.
	Reason Reason `toml:"reason,omitempty"`
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
	// Secret in AWS Secrets Manager with the upstream's credential, as ECR
	// keeps it.
	CredentialARN string `toml:"credential_arn,omitempty"`
	// File with the content of such a secret, in place of credential_arn:
	// {"username": "...", "accessToken": "..."}.
	CredentialFile Path `toml:"credential_file,omitempty"`
	// IAM role to assume for an upstream that is a private ECR registry.
	CustomRoleARN string `toml:"custom_role_arn,omitempty"`
	// AWS account whose registry the rule belongs to: on ECR registry hosts of
	// other accounts it does not hold. Empty: of any account.
	RegistryID string `toml:"registry_id,omitempty"`
	Settings
}

// Template is settings for the repositories below a prefix.
type Template struct {
	// Prefix, 1 to 256 characters, of the local repository name under any
	// rule, or of the name as stored (docker.io/library); or ROOT: where no
	// other template holds.
	Prefix string `toml:"prefix"`
	Settings
}

// Settings are what a rule or a template says of the repositories below its
// prefix. What is left out, it does not say.
type Settings struct {
	// When upstream is asked: cache-first (outside the window), upstream-first
	// (at every pull by tag; the stored image is the fallback) or offline
	// (never, for nothing).
	Mode Mode `toml:"mode,omitempty"`
	// Who is served: no (everyone who reaches larder) or verify (whose pull
	// secret the upstream accepts).
	Private Privacy `toml:"private,omitempty"`
	// As freshness.window. The windows of freshness.tags go before it.
	Window *Duration `toml:"window,omitempty"`
	// As freshness.deleted.
	Deleted Deleted `toml:"deleted,omitempty"`
	// ECR's: MUTABLE, IMMUTABLE, MUTABLE_WITH_EXCLUSION or
	// IMMUTABLE_WITH_EXCLUSION. An immutable tag that is stored is never asked
	// for again and never moves.
	ImageTagMutability Mutability `toml:"image_tag_mutability,omitempty"`
	// Tags for which the opposite holds, at most five; * stands for any
	// characters.
	ImageTagMutabilityExclusionFilters []string `toml:"image_tag_mutability_exclusion_filters,omitempty"`
	// Repositories that are served, all others are refused. Patterns for the
	// name as stored (docker.io/library/*) or below the prefix (library/*);
	// * stands for any characters. Empty: all.
	Allow []Glob `toml:"allow,omitempty"`
	// Repositories that are refused, whatever allow says. Patterns as there.
	Deny []Glob `toml:"deny,omitempty"`
	// ECR lifecycle policy, as JSON: which stored images of each repository
	// are removed, once an hour. sinceImagePulled may expire, too.
	LifecyclePolicy string `toml:"lifecycle_policy,omitempty"`
	// File with an ECR lifecycle policy, in place of lifecycle_policy. Read at
	// start.
	LifecyclePolicyFile Path `toml:"lifecycle_policy_file,omitempty"`
}
