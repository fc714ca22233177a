package integration

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/remotes/remotestest"
)

// largest is the descriptor of the image's largest blob: a layer.
func largest(img remotestest.Image) ocispec.Descriptor {
	var desc ocispec.Descriptor
	for _, b := range img.Blobs {
		if b.Descriptor.Size > desc.Size {
			desc = b.Descriptor
		}
	}
	return desc
}
