package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/larder-project/larder/integration/bench/figures"
	"github.com/larder-project/larder/integration/internal/parts"
)

// Names of contestants.
const (
	larder      = figures.Larder
	other       = "larder, other build"
	nginx       = "nginx"
	nginxCached = "nginx, files kept open"
	goFiles     = "Go file server"
	registry3   = "distribution v3"
	registry2   = "distribution 2.8"
	direct      = "containerd, direct"
	inProxy     = "larder, proxy mode"
)

// stage is what all experiments share.
type stage struct {
	bin    parts.Bin
	peers  *peers
	dir    string // of this run; removed at its end
	images *images
	opts   options
	out    io.Writer
}

// scene is one experiment's part of it: a folder, and what has to be ended.
type scene struct {
	*stage
	dir    string
	sheet  *sheet
	ending []func() error
	folder int
}

// perform runs one experiment, ends what it has started, and says what came of it.
func (s *stage) perform(ctx context.Context, e experiment) figures.Experiment {
	began := time.Now()
	fmt.Fprintf(s.out, "== %s\n", e.name)
	sc := &scene{stage: s, sheet: &sheet{out: s.out}}
	err := func() (err error) {
		if sc.dir, err = os.MkdirTemp(s.dir, "x"); err != nil {
			return fmt.Errorf("folder of an experiment: %w", err)
		}
		defer func() { err = errors.Join(err, sc.end()) }()
		return e.run(ctx, sc)
	}()
	got := figures.Experiment{Name: e.name, About: e.about, Notes: sc.sheet.notes, Rows: sc.sheet.filled(), Growth: sc.sheet.curves()}
	if err != nil {
		got.Failed = err.Error()
		fmt.Fprintf(s.out, "   FAILED: %v\n", err)
	}
	fmt.Fprintf(s.out, "   %.0f s\n", time.Since(began).Seconds())
	return got
}

// onEnd has something done at the end of the experiment, last first.
func (sc *scene) onEnd(f func() error) { sc.ending = append(sc.ending, f) }

func (sc *scene) end() error {
	var errs []error
	for i := len(sc.ending) - 1; i >= 0; i-- {
		errs = append(errs, sc.ending[i]())
	}
	return errors.Join(append(errs, os.RemoveAll(sc.dir))...)
}

// keep ends a server at the end of the experiment.
func (sc *scene) keep(srv *server, err error) (*server, error) {
	if err == nil {
		sc.onEnd(srv.close)
	}
	return srv, err
}

// newDir is a new folder; short, since there are sockets in it.
func (sc *scene) newDir() (string, error) {
	sc.folder++
	dir := filepath.Join(sc.dir, fmt.Sprint(sc.folder))
	return dir, os.Mkdir(dir, 0o700)
}

// upstream starts one for the experiment.
func (sc *scene) upstream() (*upstream, error) {
	u, err := startUpstream(sc.images)
	if err == nil {
		sc.onEnd(u.Close)
	}
	return u, err
}

// registries are the peers that pull through. Those that are missing are noted.
func (sc *scene) registries() []pullThrough {
	all := []pullThrough{{registry3, func(ctx context.Context, dir, base string) (*server, error) {
		return sc.startDistribution(ctx, registry3, sc.bin.Path("registry"), dir, base)
	}}}
	if sc.has("docker-registry", registry2) {
		all = append(all, pullThrough{registry2, func(ctx context.Context, dir, base string) (*server, error) {
			return sc.startDistribution(ctx, registry2, sc.peers.path("docker-registry"), dir, base)
		}})
	}
	return all
}

// pullThrough is a kind of server that has an upstream at base.
type pullThrough struct {
	who   string
	start func(ctx context.Context, dir, base string) (*server, error)
}

// larders are larder as one of these, and the other build of it if there is one.
func (sc *scene) larders() []pullThrough {
	all := []pullThrough{sc.larder()}
	if beside := sc.opts.beside; beside != "" {
		all = append(all, pullThrough{other, func(ctx context.Context, dir, base string) (*server, error) {
			srv, err := sc.startLarder(ctx, beside, dir, base, "")
			if err == nil {
				srv.who = other
			}
			return srv, err
		}})
	}
	return all
}

// larder is the one whose goals they are.
func (sc *scene) larder() pullThrough {
	return pullThrough{larder, func(ctx context.Context, dir, base string) (*server, error) {
		return sc.startLarder(ctx, sc.bin, dir, base, "")
	}}
}

// proxied is larder as containerd's content store and differ. extra is more of that
// table.
func (sc *scene) proxied(extra string) pullThrough {
	return pullThrough{inProxy, func(ctx context.Context, dir, base string) (*server, error) {
		socket := filepath.Join(dir, "proxy.sock")
		srv, err := sc.startLarder(ctx, sc.bin, dir, base, fmt.Sprintf("[proxy]\nenabled = true\nsocket = %q\ncontainerd = %q\n%s", socket, filepath.Join(dir, "containerd", "c.sock"), extra))
		if err == nil {
			srv.who, srv.socket = inProxy, socket
		}
		return srv, err
	}}
}

// has says whether a peer is there, and notes it if it is not.
func (sc *scene) has(program, who string) bool {
	why := sc.peers.missing[program]
	if why != "" {
		sc.sheet.note("%s was left out: %s", who, why)
	}
	return why == ""
}
