package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/plugin/seed"
	"github.com/larder-project/larder/plugin/unpack"
)

// plugins are what containerd has of larder beyond the mirror.
type plugins struct {
	seeder *seed.Seeder   // nil: images are not linked
	copies *unpack.Copies // nil: there are none
}

// tell completes a Status.
func (p plugins) tell(cfg *config.Config) func(*admin.Status) {
	return func(s *admin.Status) {
		if cfg.Proxy.Enabled {
			s.Proxy = &admin.ProxyStatus{Socket: string(cfg.Proxy.Socket), MostBytes: int64(cfg.Proxy.Copies)}
			for _, service := range cfg.Proxy.Services {
				s.Proxy.Services = append(s.Proxy.Services, string(service))
			}
			if p.copies != nil {
				s.Proxy.Copies, s.Proxy.Bytes = p.copies.Usage()
			}
		}
		if p.seeder != nil {
			images, problem := p.seeder.State()
			s.Seed = &admin.SeedStatus{Content: string(cfg.Seed.Content), Images: images, Problem: problem}
		}
	}
}

// printPlugins says what containerd has of larder beyond the mirror.
func printPlugins(w io.Writer, s admin.Status) {
	if p := s.Proxy; p != nil {
		fmt.Fprintf(w, "proxy %s, %s\n", p.Socket, strings.Join(p.Services, " and "))
		if p.Copies > 0 || p.MostBytes > 0 {
			fmt.Fprintf(w, "  %d copies of layers take %s of %s, beside the store\n", p.Copies, humanize.IBytes(uint64(p.Bytes)), humanize.IBytes(uint64(p.MostBytes)))
		}
	}
	if p := s.Seed; p != nil {
		fmt.Fprintf(w, "seed %s, %d images linked since the start\n", p.Content, p.Images)
		if p.Problem != "" {
			fmt.Fprintf(w, "  nothing is linked: %s\n", p.Problem)
		}
	}
}
