package config

import "time"

// Default returns the configuration that holds without a file. Each call
// returns a value of its own.
func Default() Config {
	return Config{
		Root: "/var/lib/larder",
		Log:  Log{Level: LevelInfo, Format: FormatText},
		Mirror: Mirror{
			Address: "127.0.0.1:5929",
			Wait:    Duration(4 * time.Second),
			Stall:   Duration(2 * time.Minute),
		},
		Admin: Admin{Address: "/run/larder/admin.sock"},
		Proxy: Proxy{
			Services:   []Service{ServiceContent, ServiceDiff},
			Socket:     "/run/larder/containerd.sock",
			Containerd: "/run/containerd/containerd.sock",
			Grace:      Duration(10 * time.Minute),
		},
		Seed: Seed{Content: "/var/lib/containerd/io.containerd.content.v1.content"},
		Names: Names{
			Unlisted:     UnlistedAllow,
			BuiltinRules: true,
			Own:          []Host{"localhost"},
			ECRHosts:     []Glob{},
		},
		Freshness: Freshness{
			Window:   Duration(24 * time.Hour),
			Patience: Duration(time.Second),
			Retry:    Duration(time.Minute),
			Deleted:  DeletedServe,
		},
		Private: Private{
			Verified: Duration(5 * time.Minute),
			Grace:    Duration(time.Hour),
			Refused:  Duration(10 * time.Second),
		},
		Companions: Companions{Fetch: true, MaxSize: 64 << 20},
		Prefetch:   Prefetch{Enabled: true, Parallel: 12},
		Fill: Fill{
			Stall:    Duration(30 * time.Second),
			MinSpeed: 1 << 10,
			Attempts: 5,
		},
		Scrub: Scrub{
			Rate:         16 << 20,
			Period:       Duration(30 * 24 * time.Hour),
			MaxLoad:      70,
			VerifyOnRead: VerifyNever,
		},
		Space: Space{MaxSize: Amount{Percent: 30}, MinFree: Amount{Percent: 17}, High: 95, Low: 85},
		Upstream: Upstream{
			DialTimeout:    Duration(2 * time.Second),
			HeaderTimeout:  Duration(10 * time.Second),
			Pause:          Duration(10 * time.Second),
			Private:        []Endpoint{},
			Reserve:        5,
			MaxConnections: 32,
			Parallel:       8,
		},
		Credentials: Credentials{ECR: true},
		Shutdown:    Shutdown{Timeout: Duration(20 * time.Second)},
	}
}
