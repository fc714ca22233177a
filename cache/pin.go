package cache

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// Owners of pins that have a meaning to larder. Everybody else may take any
// other name.
const (
	// PinOwnerCLI is the owner of a pin for which nobody was named.
	PinOwnerCLI = "cli"
	// PinOwnerConfig and PinOwnerFile are those of the configuration and of the
	// pin file. Their pins are never in the index: see SetPins.
	PinOwnerConfig = "config"
	PinOwnerFile   = "file"
)

// Pin is a reason why something may not be removed.
type Pin struct {
	// Name says what is pinned: a full reference by tag, one by digest
	// (repository@digest), a digest alone, which is that manifest or blob in
	// whatever repository, or a pattern for full references, in which "*" stands
	// for any characters.
	Name string `json:"name"`
	// Owner is who pinned it. One name may have several owners; each takes away
	// its own pin only.
	Owner string `json:"owner,omitempty"`
	// Reason is the text given with the pin.
	Reason string `json:"reason,omitempty"`
	// Created is when it was set; zero for one of the configuration.
	Created time.Time `json:"created,omitzero"`
}

// IsPattern reports whether the name is a pattern.
func (p Pin) IsPattern() bool { return strings.Contains(p.Name, "*") }

// Digest returns the digest that is pinned, "" if a tag or a pattern is.
func (p Pin) Digest() digest.Digest {
	if p.IsPattern() {
		return ""
	}
	if _, dgst, ok := strings.Cut(p.Name, "@"); ok {
		return digest.Digest(dgst)
	}
	if dgst := digest.Digest(p.Name); dgst.Validate() == nil {
		return dgst
	}
	return ""
}

// ownerSep stands in the key of a record between name and owner.
const ownerSep = "\x00"

// key is where the pin stands in the index. Without an owner of its own it is
// the name alone, as older larders have it: they go on to see and to take away
// what the command line pins. Those of other owners they leave there and do not
// heed.
func (p Pin) key() string {
	if p.Owner == PinOwnerCLI {
		return p.Name
	}
	return p.Name + ownerSep + p.Owner
}

// PutPin sets or replaces the pin of an owner, PinOwnerCLI if it has none. It
// is durable when PutPin returns. A pin without a name, or of the configuration
// or the pin file, is errdefs.ErrInvalidArgument.
func (s *Store) PutPin(p Pin) error {
	p.Owner = cmp.Or(p.Owner, PinOwnerCLI)
	switch {
	case p.Name == "" || strings.Contains(p.Name+p.Owner, ownerSep):
		return fmt.Errorf("pin %q of %q: neither may have a zero byte, and the name must not be empty: %w", p.Name, p.Owner, errdefs.ErrInvalidArgument)
	case p.Owner == PinOwnerConfig || p.Owner == PinOwnerFile:
		return fmt.Errorf("pin %s: owner %q stands for pins that are not kept in the store: %w", p.Name, p.Owner, errdefs.ErrInvalidArgument)
	}
	if err := s.index.put(pinsBucket, p.key(), p); err != nil {
		return fmt.Errorf("pin %s: %w", p.Name, err)
	}
	s.pins.forget()
	return nil
}

// DeletePin removes the pin of an owner, PinOwnerCLI if that is "". It returns
// errdefs.ErrNotFound if that owner has none in the index.
func (s *Store) DeletePin(name, owner string) error {
	key := []byte(Pin{Name: name, Owner: cmp.Or(owner, PinOwnerCLI)}.key())
	err := s.index.change(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(pinsBucket))
		if b.Get(key) == nil {
			return errdefs.ErrNotFound
		}
		return b.Delete(key)
	})
	if err != nil {
		return fmt.Errorf("unpin %s: %w", name, err)
	}
	s.pins.forget()
	return nil
}

// SetPins replaces all pins of an owner that has them elsewhere, such as the
// configuration. They are kept in memory only, and none of them is in the
// index.
func (s *Store) SetPins(owner string, pins []Pin) {
	own := make([]Pin, len(pins))
	for i, p := range pins {
		p.Owner = owner
		own[i] = p
	}
	s.pins.replace(owner, own)
}

// Pins returns all pins, those in memory too, in the order of name and owner.
func (s *Store) Pins() ([]Pin, error) {
	set, err := s.pinSet()
	if err != nil {
		return nil, err
	}
	return append([]Pin(nil), set.all...), nil
}

// PinsOf returns why an image may not be removed, nothing if it may. name is
// its full reference, by tag or by digest, and may be empty; dgst is its
// manifest's digest, and may be empty. Without a name all pins of the digest
// count, in whatever repository. It is fast enough to be asked for every image
// of a large store. Who cannot tell, because of an error, must not remove.
func (s *Store) PinsOf(name string, dgst digest.Digest) ([]Pin, error) {
	set, err := s.pinSet()
	if err != nil {
		return nil, err
	}
	return set.of(name, dgst), nil
}

// pinSet is what is pinned now.
func (s *Store) pinSet() (*pinSet, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	set, err := s.pins.get(s.readPins)
	if err != nil {
		return nil, fmt.Errorf("read pins: %w", err)
	}
	return set, nil
}

// readPins reads the index. The key says what is pinned and by whom: a record
// that does not decode costs the reason, and not the image.
func (s *Store) readPins() ([]Pin, error) {
	var all []Pin
	err := s.index.walk(pinsBucket, func(key string, data []byte) error {
		var p Pin
		if json.Unmarshal(data, &p) != nil {
			p = Pin{}
		}
		name, owner, _ := strings.Cut(key, ownerSep)
		p.Name, p.Owner = name, cmp.Or(owner, PinOwnerCLI)
		all = append(all, p)
		return nil
	})
	return all, err
}
