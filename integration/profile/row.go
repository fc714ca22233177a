package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/integration/bench/load"
)

// row is one thing that is asked for.
type row struct {
	name, method string
	object       func(*stage) (path string, desc ocispec.Descriptor)
}

func allRows() []row {
	byTag := func(s *stage) (string, ocispec.Descriptor) { return objectPath("manifests", tag), s.manifest }
	byDigest := func(s *stage) (string, ocispec.Descriptor) {
		return objectPath("manifests", s.manifest.Digest.String()), s.manifest
	}
	blob := func(s *stage) (string, ocispec.Descriptor) {
		return objectPath("blobs", s.layer.Digest.String()), s.layer
	}
	return []row{{"head", http.MethodHead, byTag}, {"manifest", http.MethodGet, byDigest}, {"blob", http.MethodGet, blob}}
}

func rowNames() (names []string) {
	for _, r := range allRows() {
		names = append(names, r.name)
	}
	return names
}

func rowsOf(names []string) (rows []row, _ error) {
next:
	for _, name := range names {
		for _, r := range allRows() {
			if r.name == name {
				rows = append(rows, r)
				continue next
			}
		}
		return nil, fmt.Errorf("-rows %q: want some of %v", name, rowNames())
	}
	return rows, nil
}

// answerLimit is how long the last answers of a load may take.
const answerLimit = 30 * time.Second

// measure has so many clients ask for it. Status and length of each answer are
// checked, and the bytes of one more.
func (r row) measure(ctx context.Context, s *stage, clients int, length time.Duration) (figures, error) {
	path, desc := r.object(s)
	before, err := used(s.larder.PID())
	if err != nil {
		return figures{}, err
	}
	got, err := load.Start(ctx, load.Plan{
		Address: strings.TrimPrefix(s.larder.URL, "http://"), Method: r.method, Path: path + "?ns=docker.io", Accept: accept, Size: desc.Size,
		Conns: clients, For: length, Limit: length + answerLimit,
	})
	if err != nil {
		return figures{}, err
	}
	after, err := used(s.larder.PID())
	if err != nil {
		return figures{}, err
	}
	return figures{Result: got, own: after - before}, s.get(ctx, path, desc)
}

// As containerd asks.
const accept = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, " +
	"application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*"

// figures are what a load came to, and what larder had of the processors meanwhile.
type figures struct {
	load.Result
	own time.Duration
}

func (f figures) String() string {
	if gib := float64(f.Bytes) / (1 << 30); gib > 1 {
		return fmt.Sprintf("%.2f GiB/s, own %.2f s/GiB", gib/f.Took.Seconds(), f.own.Seconds()/gib)
	}
	n := float64(f.Requests)
	return fmt.Sprintf("%.1fk/s, p99 %s, own %.1f µs", n/f.Took.Seconds()/1000, f.P99.Round(10*time.Microsecond), f.own.Seconds()/n*1e6)
}

// used is what a process has had of the processors: fields 14 and 15 of its stat
// (proc(5)), in ticks of which Linux has 100 a second wherever larder runs.
func used(pid int) (time.Duration, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // from the third on: the name may have spaces
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s: %q", path, text)
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %q: %w", path, text, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100), nil
}
