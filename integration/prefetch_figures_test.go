package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/plugin/unpack/unpacktest"
	"github.com/larder-project/larder/remotes/remotestest"
)

// lineEnv is how many rounds TestPrefetchFigures has.
const lineEnv = "LARDER_BENCH_PREFETCH"

// The line: what goes there and comes back takes lineDelay together, and all that
// comes back shares lineRate bytes a second, which is 200 Mbit/s.
const (
	lineDelay = 50 * time.Millisecond
	lineRate  = 25_000_000
)

// TestPrefetchFigures pulls images that are nowhere but at a registry far away, by the
// CRI, in turns: directly, and through larder with so many blobs at a time. It says
// how long that takes, and as a part of what the direct pull of the round takes.
//
//nolint:paralleltest // it measures
func TestPrefetchFigures(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv(lineEnv))
	if err != nil {
		t.Skip("takes minutes: " + lineEnv + "=5")
	}
	modes := map[string]string{"direct": "", "off": "prefetch.enabled = false\n"}
	for _, n := range []int{4, 6, 8, 12} {
		modes[fmt.Sprintf("%2d at a time", n)] = fmt.Sprintf("prefetch.parallel = %d\n", n)
	}
	names := make([]string, 0, len(modes))
	for name := range modes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, image := range []struct {
		name   string
		layers []int64
	}{
		{"60 layers of 256 KiB", slices.Repeat([]int64{256 << 10}, 60)},
		{"8 layers of 8 MiB", slices.Repeat([]int64{8 << 20}, 8)},
	} {
		t.Run(image.name, func(t *testing.T) {
			upstream := remotestest.New(t)
			upstream.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 30, Layers: image.layers}))
			address := line(t, upstream.Host())
			var figures unpacktest.Figures
			for round := range rounds {
				slices.Reverse(names)
				for _, name := range names {
					t.Run(fmt.Sprintf("%s/%d", strings.TrimSpace(name), round), func(t *testing.T) {
						figures.Add(name, pullOverLine(t, address, name == "direct", modes[name]))
					})
				}
			}
			t.Logf("%s; minimum, median and maximum of %d rounds\n%s", image.name, rounds, figures.Table("direct"))
		})
	}
}

// pullOverLine says how many seconds a pull takes.
func pullOverLine(t *testing.T, address string, direct bool, config string) float64 {
	t.Helper()
	b := newBench(t, "larder", "containerd")
	certs := filepath.Join(b.dir, "certs.d")
	if direct {
		hosts := filepath.Join(certs, "docker.io")
		if err := os.MkdirAll(hosts, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(hosts, "hosts.toml"), fmt.Appendf(nil, "server = \"http://%s\"\n", address), 0o600); err != nil {
			t.Fatal(err)
		}
	} else {
		certs = b.certs(b.larder(config + noCompanions + dockerHub("http://"+address)))
	}
	images := imageService(t, b.containerdWith(parts.ContainerdOptions{CertsDir: certs}))
	began := time.Now()
	criPull(t, images, "docker.io/library/app:1")
	return time.Since(began).Seconds()
}

// line passes connections on over the line.
func line(t *testing.T, to string) (address string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		cancel()
		all.Wait()
	})
	shared := rate.NewLimiter(lineRate, 64<<10)
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer near.Close()
				select { // to connect is once there and back, too
				case <-time.After(lineDelay):
				case <-ctx.Done():
					return
				}
				back, err := new(net.Dialer).DialContext(ctx, "tcp4", to)
				if err != nil {
					return
				}
				defer back.Close()
				defer context.AfterFunc(ctx, func() { near.Close(); back.Close() })()
				var ways sync.WaitGroup
				ways.Go(func() { defer back.Close(); delayed(ctx, back, near, nil) })
				ways.Go(func() { defer near.Close(); delayed(ctx, near, back, shared) })
				ways.Wait()
			})
		}
	})
	return l.Addr().String()
}

// delayed passes bytes on after half of the line's delay, at the speed of the limiter.
func delayed(ctx context.Context, to io.Writer, from io.Reader, speed *rate.Limiter) {
	type piece struct {
		data []byte
		due  time.Time
	}
	under := make(chan piece, 4096)
	go func() {
		defer close(under)
		for {
			buf := make([]byte, 16<<10)
			n, err := from.Read(buf)
			if n > 0 {
				if speed != nil && speed.WaitN(ctx, n) != nil {
					return
				}
				under <- piece{buf[:n], time.Now().Add(lineDelay / 2)}
			}
			if err != nil {
				return
			}
		}
	}()
	failed := false
	for p := range under {
		if wait := time.Until(p.due); wait > 0 && !failed {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		}
		if !failed { // what is left is read, so that the reader ends
			_, err := to.Write(p.data)
			failed = err != nil
		}
	}
}
