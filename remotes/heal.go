package remotes

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// VerifyOptions say what Verify reads, and what it does then.
type VerifyOptions struct {
	// Refs are the images to verify. Without any it is all blobs, or, if Since
	// is not zero, those that were stored since then.
	Refs  []Reference
	Since time.Time
	// Refetch has what is damaged fetched again.
	Refetch bool
	// Report, if set, is called now and then with how far it is, and for each
	// damaged blob.
	Report func(VerifyProgress)
}

// VerifyProgress is how far Verify is.
type VerifyProgress struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
	// Total is how many bytes there are to read.
	Total int64 `json:"total"`
	// Damaged is a blob that was just found to be so. Its images are not known
	// yet.
	Damaged *DamagedBlob `json:"damaged,omitempty"`
}

// DamagedBlob is a blob that did not have its digest, and what became of it.
type DamagedBlob struct {
	Digest digest.Digest `json:"digest"`
	Why    string        `json:"why"`
	// Images are the stored images that need it.
	Images []string `json:"images"`
	// From is the upstream that sent it again. Lost is why nobody did: the
	// images are broken then.
	From string `json:"from,omitempty"`
	Lost string `json:"lost,omitempty"`
}

// UnreadBlob is one that could not be verified, whatever it is like.
type UnreadBlob struct {
	Digest digest.Digest `json:"digest"`
	Why    string        `json:"why"`
}

// VerifyResult is what Verify found.
type VerifyResult struct {
	// Blobs and Bytes are what was read.
	Blobs   int           `json:"blobs"`
	Bytes   int64         `json:"bytes"`
	Damaged []DamagedBlob `json:"damaged"`
	Unread  []UnreadBlob  `json:"unread,omitempty"`
}

// Verify reads stored blobs from the disk and compares their digests. What is
// damaged is set aside, and fetched again from any repository that is known to
// have it. An error is that of the verification as a whole; the result is what
// was found until then.
func (r *Registry) Verify(ctx context.Context, opts VerifyOptions) (VerifyResult, error) {
	v := &verification{registry: r, opts: opts, seen: map[digest.Digest]bool{}}
	v.result.Damaged = []DamagedBlob{}
	if v.opts.Report == nil {
		v.opts.Report = func(VerifyProgress) {}
	}
	err := v.run(ctx)
	if aerr := v.attribute(ctx); err == nil {
		err = aerr
	}
	if err != nil {
		return v.result, fmt.Errorf("verify: %w", err)
	}
	return v.result, nil
}

// verification is one run of Verify.
type verification struct {
	registry *Registry
	opts     VerifyOptions
	total    int64
	seen     map[digest.Digest]bool // of images; a store is walked once anyway
	result   VerifyResult
}

func (v *verification) run(ctx context.Context) error {
	if len(v.opts.Refs) == 0 {
		return v.store(ctx)
	}
	for _, ref := range v.opts.Refs {
		if err := v.image(ctx, ref); err != nil {
			return err
		}
	}
	return nil
}

// store verifies what is in the store, whether anything needs it or not.
func (v *verification) store(ctx context.Context) error {
	store := v.registry.Store
	each := func(fn func(digest.Digest) error) error {
		return store.EachStored(ctx, "", func(dgst digest.Digest) error {
			// What is no file has no time: it is damaged, whenever that was.
			info, err := store.Info(ctx, dgst)
			if err == nil && info.CreatedAt.Before(v.opts.Since) {
				return nil
			}
			return fn(dgst)
		})
	}
	if err := each(func(dgst digest.Digest) error {
		if info, err := store.Info(ctx, dgst); err == nil {
			v.total += info.Size
		}
		return nil
	}); err != nil {
		return err
	}
	return each(func(dgst digest.Digest) error { return v.blob(ctx, dgst) })
}

// image verifies all that hangs on an image. What hangs on a manifest that was
// damaged is known when it is back: so it is looked at until nothing is new.
func (v *verification) image(ctx context.Context, ref Reference) error {
	for {
		img, _, err := v.registry.wholeImage(ref)
		if err != nil {
			return err
		}
		var fresh []digest.Digest
		img.eachNode(func(n Node) {
			if v.seen[n.Digest] {
				return
			}
			v.seen[n.Digest] = true
			fresh = append(fresh, n.Digest)
			if n.Stored {
				v.total += n.Size
			}
		})
		if len(fresh) == 0 {
			return nil
		}
		for _, dgst := range fresh {
			if err := v.blob(ctx, dgst); err != nil {
				return err
			}
		}
	}
}

// blob verifies one. Its error is the end of the whole.
func (v *verification) blob(ctx context.Context, dgst digest.Digest) error {
	err := v.registry.Store.Verify(ctx, dgst, func(_ context.Context, n int) error {
		v.result.Bytes += int64(n)
		v.report(nil)
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errdefs.IsNotFound(err): // never stored, such as other platforms, or removed meanwhile
		return nil
	case errdefs.IsUnavailable(err): // the store is closed
		return err
	}
	v.result.Blobs++
	if errdefs.IsDataLoss(err) {
		v.damaged(ctx, dgst, err)
		return nil
	}
	if err != nil {
		v.result.Unread = append(v.result.Unread, UnreadBlob{dgst, err.Error()})
	}
	v.report(nil)
	return nil
}

func (v *verification) damaged(ctx context.Context, dgst digest.Digest, why error) {
	d := DamagedBlob{Digest: dgst, Why: why.Error(), Images: []string{}, Lost: "not fetched again, as was asked for"}
	stuck, err := v.registry.Store.Has(dgst)
	switch {
	case err != nil || stuck:
		d.Lost = "it could not be set aside"
	case v.opts.Refetch:
		d.Lost = ""
		if d.From, err = v.registry.Refetch(ctx, dgst); err != nil {
			d.Lost = err.Error()
		}
	}
	v.result.Damaged = append(v.result.Damaged, d)
	v.report(&d)
}

func (v *verification) report(d *DamagedBlob) {
	v.opts.Report(VerifyProgress{Blobs: v.result.Blobs, Bytes: v.result.Bytes, Total: v.total, Damaged: d})
}

// attribute finds the images that need what was damaged.
func (v *verification) attribute(ctx context.Context) error {
	if len(v.result.Damaged) == 0 {
		return nil
	}
	wanted := map[digest.Digest]bool{}
	for _, d := range v.result.Damaged {
		wanted[d.Digest] = true
	}
	images, err := v.registry.imagesWith(ctx, wanted)
	if err != nil {
		return err
	}
	for i := range v.result.Damaged {
		d := &v.result.Damaged[i]
		for _, f := range images[d.Digest] {
			d.Images = append(d.Images, f.ref.name())
		}
		slices.Sort(d.Images)
	}
	return nil
}
