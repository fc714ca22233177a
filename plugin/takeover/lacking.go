package takeover

import (
	"errors"

	"github.com/larder-project/larder/cache"
)

// Lacking counts the blobs that are in the database of the containerd with this root, and not in its own content
// folder: on its built-in store it would not find them. It returns the errors of Open.
func Lacking(root string) (lacking int, err error) {
	c, err := Open(root, cache.OSDisk())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	known, err := c.known()
	if err != nil {
		return 0, err
	}
	for dgst := range known {
		there, err := c.isThere(dgst)
		if err != nil {
			return 0, err
		}
		if !there {
			lacking++
		}
	}
	return lacking, nil
}
