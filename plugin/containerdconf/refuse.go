package containerdconf

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/plugin/internal/ownfile"
	"github.com/larder-project/larder/plugin/takeover"
)

// refuse returns all reasons for which the configuration cannot be changed to d, or nil.
func (p plan) refuse(now effective, d dropIn) error {
	var errs []error
	add := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf(format+": %w", append(args, errdefs.ErrFailedPrecondition)...))
	}
	ours, edited := fileMark.Parse(p.old)
	switch {
	case p.old != "" && !ours:
		add("%s: larder did not write it; move it away", p.main.dropIn)
	case edited && !p.o.Force:
		add("%s: larder wrote it and it was changed by hand since; --force overwrites it", p.main.dropIn)
	}
	proxies := now.proxies()
	if !ours {
		for _, name := range []string{contentName, diffName} {
			if _, there := proxies[name]; there {
				add("containerd has a proxy plugin %q that larder setup did not write; take its tables out of %s and what that imports", name, p.o.Config)
			}
		}
	}
	present := parseDropIn(p.old).mode
	if d.mode == Proxy && present != Proxy {
		errs = append(errs, p.refuseContent(now, d.root))
	}
	if d.mode != Proxy && present == Proxy && !p.o.Forget {
		errs = append(errs, leaving(d.root))
	}
	for _, name := range slices.Sorted(maps.Keys(proxies)) {
		if d.mode == Proxy && name != contentName && proxies[name].kind == "content" {
			add("containerd's content is in the proxy plugin %q at %s, and it takes one content store", name, proxies[name].address)
		}
	}
	return errors.Join(errs...)
}

// refuseContent refuses to take containerd's content store away from it. Its database would go on to say that the blobs
// are there, so that not even a new pull would bring them.
func (p plan) refuseContent(now effective, root string) error {
	if slices.Contains(now.disabled(), contentPlugin) {
		return fmt.Errorf("containerd's own content store is disabled already, so another is in its place; larder cannot be the second: %w", errdefs.ErrFailedPrecondition)
	}
	has, err := hasContent(root)
	if err != nil {
		return err
	}
	if has && !p.o.Forget {
		return fmt.Errorf("containerd has images in %s, which it would not find any more; and not fetch again, either: stop containerd and run larder adopt. Or remove all images from containerd, and use --forget-images: %w",
			ContentDir(root), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// leaving refuses to take larder's content away from containerd, unless all that containerd's database knows has been
// handed back. That something is in its folder says little: a larder eject was ended, or containerd ran since.
func leaving(root string) error {
	const anyway = "What it does not find either is lost: then, or with all images removed from containerd before, use --forget-images"
	if root == "" { // the line was taken out by hand
		return fmt.Errorf("larder's file does not say any more where containerd's root is, so what containerd has in larder cannot be told. Where it has nothing, use --forget-images: %w",
			errdefs.ErrFailedPrecondition)
	}
	lacking, err := takeover.Lacking(root)
	switch {
	case errdefs.IsNotFound(err): // it never ran
		return nil
	case errdefs.IsUnavailable(err):
		return fmt.Errorf("containerd is running, has its content in larder, and would not find it any more, and not fetch it again, either: stop containerd, run larder eject, and then this again, before containerd starts. %s: %w",
			anyway, errdefs.ErrFailedPrecondition)
	case err != nil:
		return fmt.Errorf("what containerd has in larder, and would not find any more, cannot be told: %w", err)
	case lacking > 0:
		return fmt.Errorf("containerd has content in larder (blobs that are not in %s: %d), and would not find it any more, and not fetch it again, either: run larder eject with containerd stopped. %s: %w",
			ContentDir(root), lacking, anyway, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// ContentDir is the folder of the content store of a containerd with this root.
func ContentDir(root string) string { return filepath.Join(root, contentPlugin) }

// hasContent reports whether a containerd with this root has blobs in its own content store.
func hasContent(root string) (bool, error) {
	dir := filepath.Join(ContentDir(root), "blobs")
	algs, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, ownfile.Explain(dir, err)
	}
	for _, alg := range algs {
		if !alg.IsDir() {
			continue
		}
		d, err := os.Open(filepath.Join(dir, alg.Name()))
		if err != nil {
			return false, ownfile.Explain(dir, err)
		}
		names, err := d.Readdirnames(-1)
		d.Close()
		if err != nil {
			return false, ownfile.Explain(dir, err)
		}
		isBlob := func(name string) bool {
			return digest.NewDigestFromEncoded(digest.Algorithm(alg.Name()), name).Validate() == nil
		}
		if slices.ContainsFunc(names, isBlob) { // by its name, as containerd and larder adopt see it
			return true, nil
		}
	}
	return false, nil
}
