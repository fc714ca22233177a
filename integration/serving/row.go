package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// row is one thing that is asked for.
type row struct {
	name string
	// measure has so many clients ask a server for it.
	measure func(ctx context.Context, s *stage, of server, clients int, length time.Duration) (figures, error)
}

// figures are what was measured.
type figures struct {
	rate float64       // requests, or bytes, a second
	p99  time.Duration // of a request; 0 for streams
	cost               // of a request, or of a byte
}

// server is who is asked. group is the process group of what it runs.
type server struct {
	address string
	group   int
}

func allRows() map[string]row {
	small := func(name, method string, path func(*stage) string) row {
		return row{name, func(ctx context.Context, s *stage, of server, clients int, length time.Duration) (figures, error) {
			p := path(s)
			body := s.files[p]
			if method == "HEAD" {
				body = nil
			}
			return requests{server: of, method: method, path: p, body: body, clients: clients, length: length}.run(ctx)
		}}
	}
	byTag := func(*stage) string { return "/v2/" + repo + "/manifests/" + tag }
	byDigest := func(s *stage) string { return "/v2/" + repo + "/manifests/" + s.manifest.Digest.String() }
	rows := map[string]row{}
	for _, r := range []row{
		small("head", "HEAD", byTag),
		small("manifest", "GET", byDigest),
		{"blob", func(ctx context.Context, s *stage, of server, clients int, length time.Duration) (figures, error) {
			return streams{server: of, path: "/v2/" + repo + "/blobs/" + s.layer.Digest.String(), size: s.layer.Size, clients: clients, length: length}.run(ctx)
		}},
	} {
		rows[r.name] = r
	}
	return rows
}

func rowNames() []string { return slices.Sorted(maps.Keys(allRows())) }

func rowsOf(names []string) ([]row, error) {
	var rows []row
	for _, name := range names {
		r, ok := allRows()[name]
		if !ok {
			return nil, fmt.Errorf("-rows %q: want some of %v", name, rowNames())
		}
		rows = append(rows, r)
	}
	return rows, nil
}
