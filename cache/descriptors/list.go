// Package descriptors decodes the lists of manifests, which are hostile until
// somebody has looked at them.
package descriptors

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Max bounds the list of one manifest. A manifest of 4 MiB holds about twice as
// many.
const Max = 10_000

// maxDescriptor bounds one descriptor, with its annotations and what it embeds.
const maxDescriptor = 256 << 10

// List is one of a manifest. It is decoded one by one and up to Max, more being
// errdefs.ErrDataLoss: a million times "{}" is a manifest of 3 MiB, and takes a
// gigabyte to decode at once. A list that stands twice in a document is refused,
// too: which of them counts is anyone's guess, and there could be a million.
type List []ocispec.Descriptor

// UnmarshalJSON implements json.Unmarshaler.
func (ds *List) UnmarshalJSON(data []byte) error {
	if string(data) == "null" { // leaves what is there
		return nil
	}
	if *ds != nil {
		return fmt.Errorf("list of descriptors stands there twice: %w", errdefs.ErrDataLoss)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	switch begin, err := dec.Token(); {
	case err != nil:
		return err
	case begin != json.Delim('['):
		return fmt.Errorf("got %v, want a list of descriptors: %w", begin, errdefs.ErrDataLoss)
	}
	all := List{}
	for dec.More() {
		if len(all) == Max {
			return fmt.Errorf("list has more descriptors than the %d that are taken: %w", Max, errdefs.ErrDataLoss)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return err
		}
		var d ocispec.Descriptor
		if err := decodeOne(raw, &d); err != nil {
			return err
		}
		all = append(all, d)
	}
	*ds = all
	return nil
}
