package takeover

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// The buckets of containerd's database that are read: v1/<namespace>/content/blob/<digest> and
// v1/<namespace>/images/<name>/target. Their form has been the same since containerd 1.0.
const (
	schemaBucket  = "v1"
	contentBucket = "content"
	blobBucket    = "blob"
	imagesBucket  = "images"
	targetBucket  = "target"
	digestKey     = "digest"
)

// eachNamespace calls fn for each namespace.
func (c *Containerd) eachNamespace(fn func(ns *bolt.Bucket) error) error {
	err := c.db.View(func(tx *bolt.Tx) error {
		all := tx.Bucket([]byte(schemaBucket))
		if all == nil {
			return nil
		}
		return all.ForEachBucket(func(name []byte) error { return fn(all.Bucket(name)) })
	})
	if err != nil {
		return fmt.Errorf("read containerd's database: %w", err)
	}
	return nil
}

// known returns the digests that containerd counts on, in all of its namespaces.
func (c *Containerd) known() (map[digest.Digest]bool, error) {
	all := map[digest.Digest]bool{}
	err := c.eachNamespace(func(ns *bolt.Bucket) error {
		blobs := below(ns, contentBucket, blobBucket)
		if blobs == nil {
			return nil
		}
		return blobs.ForEachBucket(func(name []byte) error {
			if dgst := digest.Digest(name); dgst.Validate() == nil {
				all[dgst] = true
			}
			return nil
		})
	})
	return all, err
}

// images returns the manifests of each image, by its name: two namespaces may have one
// of the same name.
func (c *Containerd) images() (map[string][]digest.Digest, error) {
	all := map[string][]digest.Digest{}
	err := c.eachNamespace(func(ns *bolt.Bucket) error {
		images := below(ns, imagesBucket)
		if images == nil {
			return nil
		}
		return images.ForEachBucket(func(name []byte) error {
			if target := below(images, string(name), targetBucket); target != nil {
				all[string(name)] = append(all[string(name)], digest.Digest(target.Get([]byte(digestKey))))
			}
			return nil
		})
	})
	return all, err
}

// below finds a bucket by the names that lead to it; nil if there is none.
func below(b *bolt.Bucket, names ...string) *bolt.Bucket {
	for _, name := range names {
		if b != nil {
			b = b.Bucket([]byte(name))
		}
	}
	return b
}
