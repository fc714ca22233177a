package upstream

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// BenchmarkInParts fetches a large blob by one connection, and by as many as are
// worth it, in turn: on loopback, on a line that limits each connection, and on
// one that all share. ratio is the time in parts over that by one within a round,
// sent what left the server over what is in the blob, requests how many it took,
// and connections how many the line has seen in all rounds.
func BenchmarkInParts(b *testing.B) {
	const mb = 1e6
	for _, bc := range []struct {
		name string
		size int
		line *line
	}{
		{"loopback", 1 << 30, nil},
		{"20 MB/s a connection", 256 << 20, &line{delay: 25 * time.Millisecond, single: 20 * mb}},
		{"25 MB/s for all", 128 << 20, &line{delay: 25 * time.Millisecond, shared: 25 * mb}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			data := bytes.Repeat([]byte("larder!!"), bc.size/8)
			dgst := digest.FromBytes(data)
			var sent, requests atomic.Int64
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				http.ServeContent(countingWriter{w, &sent}, r, "", time.Time{}, bytes.NewReader(data))
			}))
			defer s.Close()
			url := s.URL
			if line := bc.line; line != nil {
				line.to = strings.TrimPrefix(s.URL, "http://")
				url = "http://" + line.listen(b)
			}
			c := newPool(b, Options{Named: endpoints(b, url), Parallel: 8, MaxConnections: 32}).Client(endpoint(b, url))
			fetch := func(hint int64) time.Duration {
				began := time.Now()
				body, _, err := c.BlobInParts(b.Context(), "team/app", dgst, 0, hint)
				if err != nil {
					b.Fatal(err)
				}
				defer body.Close()
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{body}, make([]byte, 256<<10))
				if err != nil || n != int64(len(data)) {
					b.Fatalf("%d bytes, %v", n, err)
				}
				return time.Since(began)
			}
			fetch(0) // the connection is there
			var ratios []float64
			var bytes, asked int64
			for b.Loop() {
				one := fetch(0)
				sent.Store(0)
				requests.Store(0)
				ratios = append(ratios, fetch(int64(len(data))).Seconds()/one.Seconds())
				bytes += sent.Load()
				asked += requests.Load()
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[0], "ratio-min")
			b.ReportMetric(ratios[len(ratios)/2], "ratio-median")
			b.ReportMetric(ratios[len(ratios)-1], "ratio-max")
			b.ReportMetric(float64(bytes)/float64(b.N)/float64(len(data)), "sent")
			b.ReportMetric(float64(asked)/float64(b.N), "requests")
			if bc.line != nil {
				b.ReportMetric(float64(bc.line.connections), "connections")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (w countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n.Add(int64(n))
	return n, err
}
