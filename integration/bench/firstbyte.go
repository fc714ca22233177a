package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/integration/bench/figures"
)

func firstByte() experiment {
	return experiment{
		name: "first byte",
		about: "From the moment at which upstream begins to send a blob that is not stored to that at which the client has the first byte of its body. " +
			"8 blobs of 2 to 16 MiB one after the other, the median of each round; lengths are compared, and all blobs are fetched once more to be hashed.",
		run: runFirstByte,
	}
}

func runFirstByte(ctx context.Context, sc *scene) error {
	img, err := sc.images.add(ctx, eightLayers("library/first", 8, 64<<20))
	if err != nil {
		return err
	}
	u, err := sc.upstream()
	if err != nil {
		return err
	}
	const measure = "first byte after upstream's"
	sc.sheet.row(measure, "ms", figures.Less, "", figures.Goal{Bound: 2})
	var all []contestant
	for _, kind := range append(sc.larders(), sc.registries()...) {
		all = append(all, contestant{kind.who, func(ctx context.Context, m *measured) error {
			return sc.cold(ctx, kind, u.URL(), func(srv *server) error {
				u.forget()
				var took []float64
				for _, blob := range img.layers {
					at, err := srv.timeFirstByte(ctx, srv.blobPath(img, blob.Digest), blob)
					if err != nil {
						return err
					}
					took = append(took, float64(at.Sub(u.firstByte(blob.Digest)))/float64(time.Millisecond))
				}
				m.set(measure, figures.SpreadOf(took).Median)
				return srv.fetchImage(ctx, img)
			})
		}})
	}
	return sc.rounds(ctx, all...)
}

// timeFirstByte fetches a blob, and says when its first byte came.
func (s *server) timeFirstByte(ctx context.Context, path string, blob ocispec.Descriptor) (at time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+path, nil)
	if err != nil {
		return at, err
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return at, fmt.Errorf("%s: %w", s.who, err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
		return at, fmt.Errorf("%s: GET %s: first byte: %w", s.who, path, err)
	}
	at = time.Now()
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n+1 != blob.Size || resp.StatusCode != http.StatusOK {
		return at, fmt.Errorf("%s: GET %s: %s, %d bytes, %w, want %d", s.who, path, resp.Status, n+1, err, blob.Size)
	}
	return at, nil
}
