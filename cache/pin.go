package cache

import (
	"fmt"
	"time"
)

// Pin is a reason why something may not be removed.
type Pin struct {
	// Name is the full reference that is pinned, by tag or by digest.
	Name string `json:"name"`
	// Reason is the text given with the pin.
	Reason string `json:"reason,omitempty"`
	// Created is when it was set.
	Created time.Time `json:"created"`
}

// PutPin sets or replaces a pin.
func (s *Store) PutPin(p Pin) error {
	if err := s.index.put(pinsBucket, p.Name, p); err != nil {
		return fmt.Errorf("pin %s: %w", p.Name, err)
	}
	return nil
}

// Pin returns the pin of a name, or errdefs.ErrNotFound.
func (s *Store) Pin(name string) (Pin, error) {
	var p Pin
	err := s.index.get(pinsBucket, name, &p)
	return p, err
}

// DeletePin removes a pin, or returns errdefs.ErrNotFound.
func (s *Store) DeletePin(name string) error {
	if _, err := s.Pin(name); err != nil {
		return err
	}
	if err := s.index.delete(pinsBucket, name); err != nil {
		return fmt.Errorf("unpin %s: %w", name, err)
	}
	return nil
}

// Pins returns all pins, in the order of their names.
func (s *Store) Pins() ([]Pin, error) { return records[Pin](s.index, pinsBucket) }
