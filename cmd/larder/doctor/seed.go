package doctor

import (
	"errors"
	"io/fs"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/plugin/seed"
)

// Seed says whether stored images can be linked into containerd's content folder.
func Seed(content, root string) Result {
	const check = "seed"
	err := seed.Check(content, root)
	switch {
	case err == nil:
		return Fine(check, "blobs of %s can be linked into %s", root, content)
	case errdefs.IsNotFound(err):
		return Bad(Warning, check, withoutKind(err), "start containerd, or set seed.content to its content folder")
	case errdefs.IsFailedPrecondition(err):
		return Bad(Problem, check, withoutKind(err), "set root and seed.content to folders on one file system and mount, or seed.enabled = false")
	case errors.Is(err, fs.ErrNotExist):
		return Bad(Unknown, check, err.Error(), "start the daemon (larder serve), which makes it")
	}
	return cannotRead(check, err)
}
