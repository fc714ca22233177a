package descriptors

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// One is a single descriptor of a manifest, such as its config, bounded as those
// of a List are.
type One struct{ ocispec.Descriptor }

// UnmarshalJSON implements json.Unmarshaler.
func (d *One) UnmarshalJSON(data []byte) error {
	if d.Digest != "" {
		return fmt.Errorf("descriptor stands there twice: %w", errdefs.ErrDataLoss)
	}
	return decodeOne(data, &d.Descriptor)
}

func decodeOne(data []byte, d *ocispec.Descriptor) error {
	if len(data) > maxDescriptor {
		return fmt.Errorf("descriptor has %d bytes, at most %d are taken: %w", len(data), maxDescriptor, errdefs.ErrDataLoss)
	}
	return json.Unmarshal(data, d)
}
