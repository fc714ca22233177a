package cache

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// A snapshot is what a lost index cannot be made from the blobs again: tags,
// digests that were asked for, what belongs to images, pins. It is the
// index.json of an OCI image layout, which the store's folder so becomes for
// other programs. The index decides; the snapshot follows it (see snapshots).
//
// Larder's own annotations hold records of the index as they are, JSON in JSON:
// so a record's new fields come along.
const (
	snapshotFile = ocispec.ImageIndexFile

	annotationTag  = "io.github.larder-project.tag"  // of a descriptor: Tag
	annotationLink = "io.github.larder-project.link" // of a descriptor: Link
	annotationPins = "io.github.larder-project.pins" // of the whole: key -> Pin
)

// maxSnapshot bounds what is read of a snapshot: some 500,000 tags.
const maxSnapshot = 512 << 20

func (s *Store) snapshotPath() string { return filepath.Join(s.root, snapshotFile) }

// errNotRestored is for a snapshot of an index that has not taken over the last
// one: it would be lost.
var errNotRestored = fmt.Errorf("index is not restored yet: %w", errdefs.ErrUnavailable)

// errNotRead is for a snapshot of an index that may be damaged: it might have less
// than the last one.
var errNotRead = fmt.Errorf("index is not known to be whole: %w", errdefs.ErrUnavailable)

// snapshot is a snapshot in the making. It is written as it is read: that of a
// large store has 50 MiB.
type snapshot struct {
	to  io.Writer // which tells of an error itself, at its end
	any bool      // a descriptor was written
	// sum tells one from another in what counts: when a tag was checked or
	// used last does not.
	sum hash.Hash
}

// snapshotSum tells one snapshot from another without writing it.
func (x *index) snapshotSum() ([sha256.Size]byte, error) { return x.writeSnapshot(nil) }

// writeSnapshot reads the index and writes the file, if there is a writer.
func (x *index) writeSnapshot(to *bufio.Writer) (sum [sha256.Size]byte, _ error) {
	snap := &snapshot{to: io.Discard, sum: sha256.New()}
	if to != nil {
		snap.to = to
	}
	err := x.view(func(tx *bolt.Tx) error {
		if recordIn(tx, stateBucket, newKey) != nil {
			return errNotRestored
		}
		head, tail, err := snap.frame(tx)
		if err != nil {
			return err
		}
		_, _ = snap.to.Write(head)
		if err := eachRecord(context.Background(), tx, tagsBucket, snap.addTag); err != nil {
			return err
		}
		facts := tx.Bucket([]byte(blobsBucket))
		if err := eachRecord(context.Background(), tx, manifestsBucket, func(_, record []byte) error {
			return snap.addLink(facts, record)
		}); err != nil {
			return err
		}
		_, _ = snap.to.Write(tail)
		return nil
	})
	if err == nil && (x.unread.Load() || x.isBroken()) {
		err = errNotRead // even if it was read when this began
	}
	if err == nil && to != nil {
		err = to.Flush()
	}
	snap.sum.Sum(sum[:0])
	return sum, err
}

// frame is what stands around the descriptors: the pins, above all.
func (snap *snapshot) frame(tx *bolt.Tx) (head, tail []byte, _ error) {
	pins := map[string]json.RawMessage{}
	err := eachRecord(context.Background(), tx, pinsBucket, func(key, record []byte) error {
		if json.Valid(record) {
			pins[string(key)] = bytes.Clone(record)
			fmt.Fprintf(snap.sum, "pin %q %s\n", key, record)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	text, err := json.Marshal(pins)
	if err != nil {
		return nil, nil, fmt.Errorf("encode snapshot: %w", err)
	}
	data, err := json.Marshal(imageIndex{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Annotations: map[string]string{annotationPins: string(text)}, Manifests: []ocispec.Descriptor{},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("encode snapshot: %w", err)
	}
	list := bytes.LastIndexByte(data, '[') + 1 // of the manifests
	return data[:list], data[list:], nil
}

// imageIndex is ocispec.Index in an order that lets the first bytes tell that the
// file is larder's, and its list be written bit by bit.
type imageIndex struct {
	specs.Versioned
	MediaType   string               `json:"mediaType"`
	Annotations map[string]string    `json:"annotations"`
	Manifests   []ocispec.Descriptor `json:"manifests"`
}

// snapshotStart is how a snapshot begins. One of an older larder does not.
const snapshotStart = `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","annotations":{"` + annotationPins + `":`

// isOurs reports whether larder wrote what the store's folder has for a snapshot.
// That it cannot be opened just now does not make it another program's.
func (s *Store) isOurs() (bool, error) {
	f, err := openRead(s.disk, s.snapshotPath())
	if isForeign(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	start := make([]byte, len(snapshotStart))
	if _, err := io.ReadFull(f, start); err == nil && string(start) == snapshotStart {
		return true, nil
	}
	_, ours, _ := s.readSnapshot() // what is no JSON is not larder's
	return ours, nil
}

func (snap *snapshot) addTag(_, record []byte) error {
	var t Tag
	if json.Unmarshal(record, &t) != nil || t.Target.Digest.Validate() != nil {
		return nil //nolint:nilerr // a damaged record is as good as none
	}
	fmt.Fprintf(snap.sum, "tag %q %q %q %d\n", t.Name, t.Target.Digest, t.Source, t.Moved.UnixNano())
	desc := t.Target
	desc.Annotations = map[string]string{images.AnnotationImageName: t.Name, annotationTag: string(record)}
	if _, tag, isDigest := SplitReference(t.Name); tag != "" && !isDigest {
		desc.Annotations[ocispec.AnnotationRefName] = tag
	}
	return snap.add(desc)
}

// addLink adds a manifest that is found by no tag.
func (snap *snapshot) addLink(facts *bolt.Bucket, record []byte) error {
	var l Link
	if json.Unmarshal(record, &l) != nil || l.Digest.Validate() != nil || !l.Asked && !l.Companion {
		return nil //nolint:nilerr // as above
	}
	fmt.Fprintf(snap.sum, "link %q %t %t\n", l.key(), l.Asked, l.Companion)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: l.Digest}
	if f := decodeBlob(facts.Get([]byte(l.Digest))); IsManifestMediaType(f.MediaType) {
		desc.MediaType, desc.Size = f.MediaType, f.Size
	}
	desc.Annotations = map[string]string{images.AnnotationImageName: l.key(), annotationLink: string(record)}
	return snap.add(desc)
}

func (snap *snapshot) add(desc ocispec.Descriptor) error {
	if snap.to == io.Discard {
		return nil
	}
	data, err := json.Marshal(desc)
	if err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	if snap.any {
		_, _ = io.WriteString(snap.to, ",")
	}
	snap.any = true
	_, _ = snap.to.Write(data)
	return nil
}

// restored is what a snapshot gives back: records of the index by their keys.
type restored struct {
	tags, links, pins map[string]json.RawMessage
}

// decodeSnapshot reads a snapshot. ours is false for an index.json that another
// program wrote. A record that is not as larder writes it is left out.
func decodeSnapshot(data []byte) (found restored, ours bool, err error) {
	found = restored{tags: map[string]json.RawMessage{}, links: map[string]json.RawMessage{}, pins: map[string]json.RawMessage{}}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return found, false, fmt.Errorf("%s is not JSON: %w: %w", snapshotFile, err, errdefs.ErrDataLoss)
	}
	pins, ours := index.Annotations[annotationPins]
	if !ours {
		return found, false, nil
	}
	for _, desc := range index.Manifests {
		name := desc.Annotations[images.AnnotationImageName]
		var t Tag
		if record := desc.Annotations[annotationTag]; json.Unmarshal([]byte(record), &t) == nil {
			// The descriptor is for others; that both agree shows that nobody
			// has changed one of them only.
			if t.Name == name && name != "" && t.Target.Digest == desc.Digest && desc.Digest.Validate() == nil {
				found.tags[name] = json.RawMessage(record)
			}
		}
		var l Link
		if record := desc.Annotations[annotationLink]; json.Unmarshal([]byte(record), &l) == nil {
			if l.key() == name && l.Repository != "" && l.Digest == desc.Digest && desc.Digest.Validate() == nil {
				found.links[name] = json.RawMessage(record)
			}
		}
	}
	var records map[string]json.RawMessage
	if err := json.Unmarshal([]byte(pins), &records); err != nil {
		return found, true, nil //nolint:nilerr // tags are worth having without them
	}
	for key, record := range records {
		var p Pin
		if key != "" && json.Unmarshal(record, &p) == nil && p.Name != "" {
			found.pins[key] = record
		}
	}
	return found, true, nil
}

// readSnapshot reads what the store's folder has. Without one nothing is found.
func (s *Store) readSnapshot() (found restored, ours bool, err error) {
	f, err := openRead(s.disk, s.snapshotPath())
	if isForeign(err) {
		return restored{}, false, nil
	}
	if err != nil {
		return restored{}, false, fmt.Errorf("read snapshot: %w", err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return restored{}, false, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSnapshot+1))
	if err == nil && len(data) > maxSnapshot {
		err = fmt.Errorf("more than %d bytes: %w", maxSnapshot, errdefs.ErrDataLoss)
	}
	if err != nil {
		return restored{}, false, fmt.Errorf("read snapshot: %w", err)
	}
	return decodeSnapshot(data)
}
