package cache

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// forgetNames takes all names of images out of the index, with what is remembered
// of them, in one transaction. Files go afterwards: a crash in between leaves
// blobs that hang on nothing, and those go first next time. An image of which a
// tag has moved meanwhile stays, and is not among those that are returned.
func (p *pass) forgetNames(group []doomed) (gone []doomed, _ error) {
	err := p.store.index.change(func(tx *bolt.Tx) error {
		gone = nil
		for _, d := range group {
			if !stillPoint(tx, d.rooted, d.Digest) {
				continue
			}
			if err := p.forgetImage(tx, d); err != nil {
				return err
			}
			gone = append(gone, d)
		}
		return nil
	})
	p.store.index.dropPages()
	if err != nil {
		return nil, fmt.Errorf("forget %d images: %w", len(group), err)
	}
	for _, d := range group {
		isGone := func(other doomed) bool { return other.target == d.target }
		if !slices.ContainsFunc(gone, isGone) {
			p.graph.restore(d.target)
		}
	}
	return gone, nil
}

// stillPoint reports whether all tags of an image that are there point to it.
func stillPoint(tx *bolt.Tx, img rooted, target digest.Digest) bool {
	for _, n := range img.names {
		if t, ok := decodeTag(tx, n.name); ok && t.Target.Digest != target {
			return false
		}
	}
	return true
}

func (p *pass) forgetImage(tx *bolt.Tx, d doomed) error {
	gr := p.grave(d.Eviction, d.free)
	for _, n := range d.names {
		var err error
		if n.byDigest {
			err = unask(tx, n.name)
		} else {
			err = evictTag(tx, n.name, d.Digest, d.Why, gr.At)
		}
		if err != nil {
			return err
		}
	}
	for _, n := range d.free {
		for _, c := range p.graph.companionsOf(n) {
			if c.tag == "" {
				continue
			}
			if err := evictTag(tx, c.tag, p.graph.digestOf(c.target), d.Why, gr.At); err != nil {
				return err
			}
		}
	}
	return dig(tx, gr)
}

// grave is what is remembered of an eviction of these blobs.
func (p *pass) grave(ev Eviction, nodes []int32) Grave {
	gr := Grave{At: p.store.now(), Names: ev.Names, Digest: ev.Digest, Count: ev.Blobs, Bytes: ev.Bytes, Why: ev.Why}
	for _, n := range nodes[:min(len(nodes), maxGraveBlobs)] {
		gr.Blobs = append(gr.Blobs, p.graph.digestOf(n))
	}
	return gr
}

// evictTag forgets a tag, if it still points to target. Its history stays.
func evictTag(tx *bolt.Tx, name string, target digest.Digest, why string, now time.Time) error {
	t, ok := decodeTag(tx, name)
	if ok && t.Target.Digest != target {
		return nil
	}
	if ok {
		if err := noteEnd(tx, name, t, Ending{Why: Evicted, Detail: why}, now); err != nil {
			return err
		}
	}
	return tx.Bucket([]byte(tagsBucket)).Delete([]byte(name))
}

// unask has a manifest that somebody asked for by digest be one like others. Its
// link goes with the blob.
func unask(tx *bolt.Tx, key string) error {
	l, ok := decoded[Link](tx.Bucket([]byte(manifestsBucket)).Get([]byte(key)))
	if !ok {
		return nil
	}
	l.Asked = false
	return putRecord(tx, manifestsBucket, key, l)
}

// forget drops what the index knows of blobs that are gone, of their links, and of
// what their manifests said of blobs that never came.
func (p *pass) forget() error {
	nodes := p.dead
	p.dead = nil
	if len(nodes) == 0 {
		return nil
	}
	slices.Sort(nodes) // as the index is
	err := p.store.index.change(func(tx *bolt.Tx) error {
		for i, n := range nodes {
			if i%64 == 0 {
				dropPages(tx) // it is here and there in all of the index
			}
			dgst := p.graph.digestOf(n)
			// A fill notes what it knows before it publishes.
			if has, err := p.store.Has(dgst); has || err != nil || p.store.isFilling(fillRef+dgst.String()) {
				continue // it has come again, or will
			}
			for _, l := range p.graph.linksOf(n) {
				if err := deleteLink(tx, Link{Repository: l.repository, Digest: dgst}.key()); err != nil {
					return err
				}
			}
			if err := p.forgetClaims(tx, dgst); err != nil {
				return err
			}
			if err := forgetBlob(tx, dgst); err != nil {
				return err
			}
		}
		return nil
	})
	p.store.index.dropPages()
	if err != nil {
		return fmt.Errorf("forget %d blobs: %w", len(nodes), err)
	}
	return nil
}

// forgetClaims drops what a manifest said of blobs that are not stored, such as
// those of other platforms.
func (p *pass) forgetClaims(tx *bolt.Tx, manifest digest.Digest) error {
	record := bytes.Clone(tx.Bucket([]byte(childrenBucket)).Get(childKey(manifest)))
	for {
		alg, sum, rest, ok := nextDigest(record)
		if !ok {
			return nil
		}
		record = rest
		if _, stored := p.graph.find(keyOfBinary(alg, sum)); stored {
			continue
		}
		dgst := textOf(alg, sum)
		if blobIn(tx, dgst).IsMeasured() {
			continue // it came since the pass began
		}
		if err := tx.Bucket([]byte(blobsBucket)).Delete([]byte(dgst)); err != nil {
			return err
		}
	}
}
