package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/larder-project/larder/cache"
)

// Folder says whether the store's folder is there, and larder's alone.
func Folder(root string) []Result {
	const check = "store folder"
	info, err := os.Stat(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Result{Bad(Warning, check, root+" does not exist yet", "start the daemon (larder serve), which makes it")}
	case err != nil:
		return []Result{cannotRead(check, err)}
	case !info.IsDir():
		return []Result{Bad(Problem, check, root+" is not a folder", "move it away, or set root to another place")}
	}
	var all []Result
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 {
		all = append(all, Bad(Warning, check, fmt.Sprintf("%s belongs to user %d, who can change what the node runs", root, owner.Uid),
			"run the daemon as root, and: chown -R root:root "+root))
	}
	switch mode := info.Mode().Perm(); {
	case mode&0o022 != 0:
		all = append(all, Bad(Problem, check, fmt.Sprintf("%s has mode %#o: other users can put images there", root, mode), "chmod 0700 "+root))
	case mode&0o077 != 0:
		all = append(all, Bad(Warning, check, fmt.Sprintf("%s has mode %#o: other users can read private images", root, mode), "chmod 0700 "+root))
	}
	if len(all) == 0 {
		all = append(all, Fine(check, "%s, root's alone", root))
	}
	return all
}

// Format says whether this larder can open the store.
func Format(root string) Result {
	const check = "store format"
	version, err := cache.ReadFormat(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Fine(check, "none yet, the daemon will write %d", cache.FormatVersion)
	case errors.As(err, new(*fs.PathError)):
		return cannotRead(check, err)
	case err != nil:
		return Bad(Problem, check, err.Error(), "remove that file if something damaged it; the blobs beside it stay")
	case version > cache.FormatVersion:
		return Bad(Problem, check, fmt.Sprintf("%s has format %d, this larder knows up to %d", root, version, cache.FormatVersion),
			"use the newer larder again, or set root to another folder")
	}
	return Fine(check, "%d", version)
}

const (
	// made is the year before which there was no larder, and so no right clock.
	made = 2026
	// clockSlack is more than clocks of a node and its file server differ by.
	clockSlack = time.Minute
	// maxTimes bounds how many entries of one folder are looked at.
	maxTimes = 1000
)

// Times looks for times in the store that are still to come: the clock was
// wrong then, or is now. Of large folders it sees a part.
func Times(root string, now time.Time) Result {
	const check = "clock"
	if now.Year() < made {
		return Bad(Problem, check, "it is "+now.Format(time.RFC3339)+" on this node", "set the clock: certificates of upstreams do not hold at that time")
	}
	newest, path, err := newestIn(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Fine(check, "%s; there is no store to compare it with", now.Format(time.RFC3339))
	case err != nil:
		return cannotRead(check, err)
	case newest.After(now.Add(clockSlack)):
		return Bad(Warning, check, fmt.Sprintf("%s is from %s, which is still to come", path, newest.Format(time.RFC3339)),
			"see that the clock is right (timedatectl); if it is, tags that were checked then are fresh for too long: larder refresh them")
	}
	return Fine(check, "%s; nothing in the store is later", now.Format(time.RFC3339))
}

// newestIn returns the latest time of change at the top of a store and among
// the first of its blobs and ingests.
func newestIn(root string) (newest time.Time, path string, err error) {
	for _, dir := range []string{root, filepath.Join(root, "blobs", "sha256"), filepath.Join(root, "ingest")} {
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) && dir != root {
			continue
		}
		if err != nil {
			return newest, "", err
		}
		// Fewer than that many end in io.EOF, and an entry may go meanwhile.
		entries, _ := f.ReadDir(maxTimes)
		_ = f.Close()
		for _, e := range entries {
			if info, err := e.Info(); err == nil && info.ModTime().After(newest) {
				newest, path = info.ModTime(), filepath.Join(dir, e.Name())
			}
		}
	}
	return newest, path, nil
}

// cannotRead is the result of a check that was not let look.
func cannotRead(check string, err error) Result {
	remedy := ""
	if errors.Is(err, fs.ErrPermission) {
		remedy = "run larder doctor as root"
	}
	return Bad(Unknown, check, err.Error(), remedy)
}
