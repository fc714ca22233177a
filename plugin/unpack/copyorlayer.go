package unpack

import (
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// copyOrLayer reads a layer's copy, and goes on with the layer itself where the copy
// is spoiled.
type copyOrLayer struct {
	in    io.ReadCloser // the copy, or what decompresses the layer
	copy  *openCopy
	layer content.ReaderAt
}

func (r *copyOrLayer) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	if err == nil || errors.Is(err, io.EOF) || r.in != io.ReadCloser(r.copy) {
		return n, err
	}
	r.copy.spoiled(err)
	layer, lerr := decompressorOf(r.layer)
	if lerr != nil {
		return 0, errors.Join(err, lerr)
	}
	r.in = layer
	// What was read of the copy was right, up to what comes now.
	if _, lerr := io.CopyN(io.Discard, layer, r.copy.off-int64(n)); lerr != nil {
		if errors.Is(lerr, io.EOF) {
			lerr = io.ErrUnexpectedEOF // an end would be none of an error to who reads this
		}
		return 0, fmt.Errorf("%w: read layer where its copy ends: %w", err, lerr)
	}
	return r.Read(p)
}

// Close closes both.
func (r *copyOrLayer) Close() error {
	err := r.copy.Close()
	if r.in != io.ReadCloser(r.copy) {
		err = errors.Join(err, r.in.Close())
	}
	return err
}

// check takes the copy away if it was another layer's. It was unpacked, then: whoever
// asked for it must ask again.
func (r *copyOrLayer) check(plain digest.Digest) error {
	if plain == r.copy.plain {
		return nil
	}
	err := fmt.Errorf("copy of layer %s has the digest %s, want %s: %w", r.copy.layer, plain, r.copy.plain, errdefs.ErrDataLoss)
	r.copy.spoiled(err)
	return err
}
