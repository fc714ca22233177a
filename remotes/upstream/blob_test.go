package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestBlobOffset opens a blob here and there, at registries that know Range
// and such that do not, with and without a length.
func TestBlobOffset(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		opts    []remotestest.Option
		fault   remotestest.FaultFunc
		unsized bool // without a Content-Length
	}{
		"range":                      {},
		"no range":                   {opts: []remotestest.Option{remotestest.WithoutRange()}},
		"no length":                  {fault: remotestest.ShortChunked(1 << 40), unsized: true},
		"no range, no length":        {opts: []remotestest.Option{remotestest.WithoutRange()}, fault: remotestest.ShortChunked(1 << 40), unsized: true},
		"no range, without a digest": {opts: []remotestest.Option{remotestest.WithoutRange(), remotestest.WithoutDigestHeader()}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, img := withImage(t, tc.opts...)
			if tc.fault != nil {
				reg.Fault(remotestest.Blobs(), tc.fault)
			}
			want := layer(img)
			for _, offset := range []int64{0, 1, 4096, int64(len(want.Data)) - 1} {
				data, size, err := readBlob(t, clientOf(t, reg), "team/app", want, offset)
				if err != nil || !bytes.Equal(data, want.Data[offset:]) {
					t.Errorf("at %d: %d bytes, %v, want %d", offset, len(data), err, len(want.Data)-int(offset))
				}
				wantSize := want.Descriptor.Size
				if tc.unsized && (offset == 0 || len(tc.opts) > 0) {
					wantSize = -1 // a 206 tells it in its Content-Range
				}
				if size != wantSize {
					t.Errorf("at %d: size %d, want %d", offset, size, wantSize)
				}
			}
		})
	}
}

// TestBlobBehindEnd asks for what is not there.
func TestBlobBehindEnd(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]remotestest.Option{"range": nil, "no range": {remotestest.WithoutRange()}} {
		reg, img := withImage(t, opts...)
		want := layer(img)
		_, _, err := readBlob(t, clientOf(t, reg), "team/app", want, int64(len(want.Data))+1)
		e := failure(t, err, errdefs.ErrOutOfRange)
		if e.Status != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("%s: status %d", name, e.Status)
		}
		data, _, err := readBlob(t, clientOf(t, reg), "team/app", want, int64(len(want.Data)))
		if name == "range" {
			failed(t, err, errdefs.ErrOutOfRange)
		} else if err != nil || len(data) != 0 {
			t.Errorf("%s, at its end: %d bytes, %v, want none", name, len(data), err)
		}
	}
}

// TestBlobWrongRange answers with parts that are not what was asked for.
// containerd's client would take any of them.
func TestBlobWrongRange(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		offset int64
		status int
		text   string
	}{
		{100, 206, "bytes 0-99/300"}, {100, 206, "bytes 1000-1099/3000"}, {100, 206, ""}, {100, 206, "bytes */300"},
		{100, 206, "lines 100-199/300"}, {100, 206, "bytes 100-99/300"}, {100, 206, "bytes 100-300/300"}, {100, 200, "bytes 100-199/300"},
		{0, 206, "bytes 0-99/300"}, {0, 206, ""},
	} {
		h := http.Header{}
		if tc.text != "" {
			h.Set("Content-Range", tc.text)
		}
		reg, img := withImage(t)
		reg.Fault(remotestest.Blobs(), remotestest.Status(tc.status, h, strings.Repeat("x", 100)))
		_, _, err := readBlob(t, clientOf(t, reg), "team/app", layer(img), tc.offset)
		failed(t, err, errdefs.ErrDataLoss)
		if n := reg.Count("", "/blobs/"); n != 1 {
			t.Errorf("%+v: %d requests, want 1", tc, n)
		}
	}
}

// TestBlobPart has upstream send less than asked for, and say so.
func TestBlobPart(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	h := http.Header{"Content-Range": {"bytes 100-199/300"}}
	reg.Fault(remotestest.Blobs(), remotestest.Status(206, h, strings.Repeat("x", 100)))
	data, size, err := readBlob(t, clientOf(t, reg), "team/app", layer(img), 100)
	if err != nil || len(data) != 100 || size != 300 {
		t.Errorf("got %d bytes of %d, %v, want 100 of 300", len(data), size, err)
	}
}

// TestBlobResumes cuts a body more than once, at registries that know Range
// and such that do not.
func TestBlobResumes(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]remotestest.Option{
		"range": nil, "no range": {remotestest.WithoutRange()}, "token": {remotestest.WithToken()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, img := withImage(t, opts...)
			want := layer(img)
			cuts := []int64{200_000, 50_000}
			if name == "no range" {
				cuts = []int64{50_000, 200_000}
			}
			reg.Fault(remotestest.Blobs(), remotestest.Times(1, remotestest.CutBody(cuts[0])))
			reg.Fault(remotestest.Blobs(), remotestest.Times(2, remotestest.CutBody(cuts[1])))
			data, size, err := readBlob(t, clientOf(t, reg), "team/app", want, 7)
			if err != nil || !bytes.Equal(data, want.Data[7:]) || size != want.Descriptor.Size {
				t.Errorf("got %d bytes of %d, %v", len(data), size, err)
			}
			if n := reg.Count("GET", "/blobs/"); n < 3 {
				t.Errorf("%d requests, want that it was cut twice", n)
			}
		})
	}
}

// TestBlobCutForGood cuts a body that nothing brings back.
func TestBlobCutForGood(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]remotestest.FaultFunc{
		"gone":    remotestest.Error(404, "BLOB_UNKNOWN", "gone"),
		"failing": remotestest.Error(503, "UNAVAILABLE", "later"),
		"limited": remotestest.TooManyRequests(0),
		"wrong":   remotestest.Status(206, http.Header{"Content-Range": {"bytes 0-1/2"}}, "xx"),
	} {
		reg, img := withImage(t)
		reg.Fault(remotestest.Blobs(), remotestest.After(1, after))
		reg.Fault(remotestest.Blobs(), remotestest.CutBody(100_000))
		body, size, err := clientOf(t, reg).Blob(soon(t), "team/app", layer(img).Descriptor.Digest, 0)
		if err != nil || size != layer(img).Descriptor.Size {
			t.Fatalf("%s: %v", name, err)
		}
		data, err := io.ReadAll(body)
		e := failure(t, err, errdefs.ErrUnavailable)
		if !errors.Is(e, io.ErrUnexpectedEOF) || !bytes.Equal(data, layer(img).Data[:100_000]) {
			t.Errorf("%s: %d bytes, %v, want what came and unexpected EOF", name, len(data), err)
		}
		asked := reg.Count("", "/blobs/")
		if _, again := body.Read(make([]byte, 1)); again == nil || again.Error() != e.Error() {
			t.Errorf("%s: the next read gets %v, want the same error", name, again)
		}
		body.Close()
		if n := reg.Count("", "/blobs/"); asked != 2 || n != asked {
			t.Errorf("%s: %d and %d requests, want 2 and no more behind the end", name, asked, n)
		}
	}
}

// TestBlobEnd reads behind the end, where containerd's reader would ask
// again.
func TestBlobEnd(t *testing.T) {
	t.Parallel()
	reg := remotestest.New(t)
	for _, data := range [][]byte{nil, {1}, bytes.Repeat([]byte{1}, 100), bytes.Repeat([]byte{1}, blobBuffer), bytes.Repeat([]byte{1}, 3*blobBuffer+1)} {
		desc := reg.PutBlob("team/app", data)
		reg.ResetRequests()
		body, size, err := clientOf(t, reg).Blob(soon(t), "team/app", desc.Digest, 0)
		if err != nil || size != desc.Size {
			t.Fatalf("%d bytes: size %d, %v", len(data), size, err)
		}
		got, err := io.ReadAll(body)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: got %d, %v", len(data), len(got), err)
		}
		for range 3 {
			if n, err := body.Read(make([]byte, 10)); n != 0 || err != io.EOF {
				t.Errorf("%d bytes: behind the end: %d, %v", len(data), n, err)
			}
		}
		body.Close()
		if n := len(reg.Requests()); n != 1 {
			t.Errorf("%d bytes: %d requests, want 1", len(data), n)
		}
	}
}

// TestBlobEndsWithContext cancels while the body is read.
func TestBlobEndsWithContext(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	reg.Fault(remotestest.Blobs(), remotestest.HangBody(1000))
	ctx, cancel := context.WithCancel(soon(t))
	body, _, err := clientOf(t, reg).Blob(ctx, "team/app", layer(img).Descriptor.Digest, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = io.ReadAll(body)
	if e := failure(t, err, errdefs.ErrUnavailable); !errors.Is(e, context.Canceled) {
		t.Errorf("error is %v, want canceled", e)
	}
}

// TestBlobWrongLength leaves the judgement to the fill, but must not hang or
// lie about the size.
func TestBlobWrongLength(t *testing.T) {
	t.Parallel()
	for delta, ok := range map[int64]bool{-5: true, 5: false} {
		reg, img := withImage(t)
		reg.Fault(remotestest.Blobs(), remotestest.WrongContentLength(delta))
		want := layer(img)
		data, size, err := readBlob(t, clientOf(t, reg), "team/app", want, 0)
		if (err == nil) != ok || size != want.Descriptor.Size+delta || len(data) != len(want.Data)+int(min(delta, 0)) {
			t.Errorf("%+d: %d bytes of %d, %v", delta, len(data), size, err)
		}
	}
}

// BenchmarkBlob and BenchmarkPlainGet read the same body through the whole
// client and by net/http alone.
func BenchmarkBlob(b *testing.B) {
	reg, desc := benchmarkBlob(b)
	c := clientOf(b, reg)
	buf := make([]byte, 1<<20)
	for b.Loop() {
		body, _, err := c.Blob(b.Context(), "team/app", desc.Digest, 0)
		if err != nil {
			b.Fatal(err)
		}
		drain(b, body, buf, desc.Size)
	}
}

func BenchmarkPlainGet(b *testing.B) {
	reg, desc := benchmarkBlob(b)
	tr := &http.Transport{ReadBufferSize: 64 << 10, DisableCompression: true}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	buf := make([]byte, 1<<20)
	for b.Loop() {
		resp, err := client.Get(fmt.Sprintf("%s/v2/team/app/blobs/%s", reg.URL(), desc.Digest))
		if err != nil {
			b.Fatal(err)
		}
		drain(b, resp.Body, buf, desc.Size)
	}
}

func benchmarkBlob(b *testing.B) (*remotestest.Registry, ocispec.Descriptor) {
	b.Helper()
	reg := remotestest.New(b)
	desc := reg.PutBlob("team/app", bytes.Repeat([]byte("larder"), 8<<20))
	b.SetBytes(desc.Size)
	return reg, desc
}

// drain reads as a fill does: into a buffer, without io.WriterTo.
func drain(b *testing.B, body io.ReadCloser, buf []byte, size int64) {
	b.Helper()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{body}, buf)
	if err != nil || n != size {
		b.Fatalf("%d bytes, %v", n, err)
	}
	body.Close()
}
