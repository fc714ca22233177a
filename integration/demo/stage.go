package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// The image of the demo, as its upstream knows it.
const (
	repo = "library/shop"
	tag  = "1"
)

// stage is the node and its upstream, with a meter on each wire.
type stage struct {
	bin        parts.Bin
	dir, certs string

	registry   *parts.Registry
	wire       *parts.Meter // between larder and the upstream
	larder     *parts.Larder
	node       *parts.Meter // between containerd and larder
	containerd *parts.Containerd

	closers []func() error
	pulls   []pull
}

// pull is what one pull cost.
type pull struct {
	when, ref  string
	wire, node parts.Traffic
	hits       int // answers from larder's store, of those in node
	took       time.Duration
}

func newStage(bin parts.Bin) (*stage, error) {
	dir, err := parts.TempDir()
	if err != nil {
		return nil, err
	}
	s := &stage{bin: bin, dir: dir, certs: filepath.Join(dir, "certs.d")}
	s.closers = append(s.closers, func() error { return os.RemoveAll(dir) })
	return s, nil
}

// close ends what was started, the last first.
func (s *stage) close() error {
	var errs []error
	for _, end := range slices.Backward(s.closers) {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// names are the three ways to name the image on this node.
func names() []string {
	return []string{
		"docker.io/" + repo + ":" + tag,
		"123456789012.dkr.ecr.eu-central-1.amazonaws.com/docker-hub/" + repo + ":" + tag,
		"localhost/docker-hub/" + repo + ":" + tag,
	}
}

// start brings up registry, larder and containerd, and points containerd at
// larder by larder's own setup verb.
func (s *stage) start(ctx context.Context, out *screen) (err error) {
	out.heading("Start a registry, larder, and containerd")
	if s.registry, err = parts.StartRegistry(ctx, s.bin, s.dir); err != nil {
		return err
	}
	s.closers = append(s.closers, s.registry.Close)
	if s.wire, err = parts.NewMeter(s.registry.URL); err != nil {
		return err
	}
	s.closers = append(s.closers, s.wire.Close)
	// The account's registry is a pull through cache, so the built-in rules hold
	// there, too.
	route := fmt.Sprintf("names.ecr_hosts = [\"123456789012.*\"]\n[[routes]]\nregistry = \"docker.io\"\nupstreams = [%q]\n", s.wire.URL())
	if s.larder, err = parts.StartLarder(ctx, s.bin, s.dir, route); err != nil {
		return err
	}
	s.closers = append(s.closers, s.larder.Close)
	if s.node, err = parts.NewMeter(s.larder.URL); err != nil {
		return err
	}
	s.closers = append(s.closers, s.node.Close)
	if err = s.larder.Setup(ctx, s.certs, s.node.URL()); err != nil {
		return err
	}
	s.containerd, err = parts.StartContainerd(ctx, s.bin, s.dir, parts.ContainerdOptions{CertsDir: s.certs})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, s.containerd.Close)
	out.line("upstream    %s, which stands for docker.io", s.wire.URL())
	out.line("larder      %s", s.larder.URL)
	out.line("containerd  finds larder by the hosts.toml files of `larder setup containerd`")
	return nil
}

// publish pushes a real image with two platforms.
func (s *stage) publish(ctx context.Context, out *screen) error {
	out.heading("Push an image to the registry")
	binary, err := os.ReadFile(s.bin.Path("larder")) // static, so it is a container's whole file system
	if err != nil {
		return err
	}
	img := remotestest.Build(remotestest.ImageSpec{
		Seed: 2026, Layers: []int64{8 << 20, 200 << 10}, Platforms: []string{"linux/amd64", "linux/arm64"},
		Files: []remotestest.File{{Path: "larder", Mode: 0o755, Data: binary}}, Cmd: []string{"/larder", "version"},
	})
	var bytes int64
	for _, desc := range img.Descriptors() {
		bytes += desc.Size
	}
	if err := remotestest.Push(ctx, s.registry.URL, repo, tag, img); err != nil {
		return err
	}
	out.line("%s:%s: 2 platforms with 3 layers each, %s in all", repo, tag, size(bytes))
	return nil
}

func (s *stage) pullFirst(ctx context.Context, out *screen) error {
	out.heading("Pull it for the first time: larder fetches while it serves")
	p, err := s.pull(ctx, out, "running", names()[0])
	if err != nil {
		return err
	}
	return expect(p.wire.Requests > 0 && p.wire.Bytes > 8<<20, "the first pull came from upstream, got %+v", p.wire)
}

func (s *stage) pullOtherNames(ctx context.Context, out *screen) error {
	out.heading("Pull it by the names of an ECR pull-through cache and of larder itself: one entry")
	return s.pullServed(ctx, out, "running", names()[1:])
}

func (s *stage) deleteUpstream(ctx context.Context, out *screen) error {
	out.heading("Delete the image upstream, and pull it by all names")
	if err := parts.DeleteImage(ctx, s.registry.URL, repo, tag); err != nil {
		return err
	}
	status, err := head(ctx, s.registry.URL+"/v2/"+repo+"/manifests/"+tag)
	if err != nil {
		return err
	}
	out.line("the registry now says %d %s", status, http.StatusText(status))
	if err := expect(status == http.StatusNotFound, "the deleted image is gone upstream, got status %d", status); err != nil {
		return err
	}
	return s.pullServed(ctx, out, "deleted", names())
}

func (s *stage) stopUpstream(ctx context.Context, out *screen) error {
	out.heading("Stop the registry")
	if err := errors.Join(s.wire.Cut(), s.registry.Close()); err != nil {
		return err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.wire.Host())
	if err == nil {
		_ = conn.Close()
	}
	out.line("dial %s: connection refused", s.wire.Host())
	return expect(err != nil, "the stopped registry refuses connections")
}

func (s *stage) pullAgain(ctx context.Context, out *screen) error {
	out.heading("Pull it again by all three names")
	return s.pullServed(ctx, out, "stopped", names())
}

func (s *stage) startContainer(ctx context.Context, out *screen) error {
	ref := names()[len(names())-1]
	out.heading("Start a container from it: its command is `larder version`")
	printed, err := s.containerd.RunContainer(ctx, ref)
	if err != nil {
		return err
	}
	out.line("%s", strings.TrimSpace(printed))
	return expect(strings.Contains(printed, "larder"), "the container says its version, got %q", printed)
}

// pullServed pulls each name into an empty containerd; upstream must not be
// needed for it.
func (s *stage) pullServed(ctx context.Context, out *screen, when string, refs []string) error {
	for _, ref := range refs {
		p, err := s.pull(ctx, out, when, ref)
		if err != nil {
			return err
		}
		if err := expect(p.wire.Requests == 0, "%s came from larder, but upstream saw %d requests", ref, p.wire.Requests); err != nil {
			return err
		}
		if err := expect(p.node.Bytes > 8<<20, "larder sent the image, got %d bytes", p.node.Bytes); err != nil {
			return err
		}
	}
	return nil
}

// pull empties containerd, has ctr pull ref, and measures both wires.
func (s *stage) pull(ctx context.Context, out *screen, when, ref string) (pull, error) {
	if err := s.containerd.Forget(ctx, "default"); err != nil {
		return pull{}, err
	}
	p := pull{when: when, ref: ref}
	wire, node, seen := s.wire.Total(), s.node.Total(), len(s.node.Exchanges())
	begun := time.Now()
	if _, err := s.containerd.Ctr(ctx, "images", "pull", "--hosts-dir", s.certs, ref); err != nil {
		return pull{}, err
	}
	p.took = time.Since(begun)
	p.wire, p.node = s.wire.Total().Sub(wire), s.node.Total().Sub(node)
	for _, e := range s.node.Exchanges()[seen:] {
		if e.Cache == "hit" || e.Cache == "stale" {
			p.hits++
		}
	}
	images, err := s.containerd.Ctr(ctx, "images", "ls", "-q")
	if err != nil {
		return pull{}, err
	}
	if err := expect(strings.TrimSpace(images) == ref, "containerd has %s, got %q", ref, images); err != nil {
		return pull{}, err
	}
	s.pulls = append(s.pulls, p)
	out.pulled(p)
	return p, nil
}

// errExpected tells that the demo did not go as it should.
var errExpected = errors.New("not as expected")

func expect(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf("%w: %s", errExpected, fmt.Sprintf(format, args...))
}

func head(ctx context.Context, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
