package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/containerd/errdefs"
)

// MaxBlobSize bounds a blob: ECR's quota for a layer, 52,000 MiB. It keeps an
// upstream that never stops from taking the disk.
const MaxBlobSize = 52_000 << 20

// run is the fill's life. The ref is free again before anyone sees the end,
// so that the next fill of this digest can have it; unless readers still need
// a part of the blob that is in the file, and nobody may write into that.
func (f *Fill) run(ctx context.Context, src Source) {
	err := f.fill(ctx, src)
	switch {
	case f.unstored != nil && err == f.unstored: //nolint:errorlint // the very same: told when it was noted
	case err != nil && f.isAbandoned():
		f.store.logger.DebugContext(ctx, "fill abandoned", "digest", f.digest, "err", err)
	case err != nil:
		f.store.logger.WarnContext(ctx, "fill failed", "digest", f.digest, "err", err)
	}
	if f.window == nil || !f.verified {
		f.freeRef()
	}
	f.finish(err)
}

// fill opens the ingest, brings the missing bytes, verifies, publishes. What
// the disk does not take goes to the readers all the same.
func (f *Fill) fill(ctx context.Context, src Source) error {
	in, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer f.store.usage.shut(in.dir)
	source, err := f.complete(ctx, in, src)
	if err != nil {
		if in.offset == 0 && f.unstored == nil {
			in.remove(ctx) // nothing to resume: every 404 would leave a folder
		}
		return err
	}
	f.update(func() { f.verified, f.answered, f.size = true, true, in.offset })
	letReadersGo()
	if f.unstored != nil {
		return f.unstored
	}
	return f.publish(ctx, in, source)
}

// publish makes the verified bytes a blob. Facts are worth less than bytes:
// that they cannot be noted fails nobody's pull.
func (f *Fill) publish(ctx context.Context, in *ingest, source string) error {
	// Before the blob can be seen: who asks for it then finds its holder. And before
	// it can be served: a file that is changed from now on shows by its size.
	if err := f.store.notePublished(f.digest, in.offset, Facts{Source: source}, true, f.origin.Repository); err != nil {
		f.store.logger.WarnContext(ctx, "fill: facts not noted", "digest", f.digest, "err", err)
	}
	if err := in.publish(ctx, f.digest); err != nil && !errdefs.IsAlreadyExists(err) {
		f.store.noteDisk(ctx, err, in.offset)
		if isDiskFailure(err) {
			in.remove(ctx)
		}
		f.store.logger.WarnContext(ctx, "fill not published", "digest", f.digest, "err", err)
		f.update(func() { f.unstored = fmt.Errorf("blob %s is not stored: %w", f.digest, err) })
		return f.unstored
	}
	return nil
}

// complete brings the ingest to the verified whole. If a whole that was put
// together from pieces does not match, one of the pieces is wrong and cannot
// be told from the others: it is fetched once more, from the start.
func (f *Fill) complete(ctx context.Context, in *ingest, src Source) (source string, err error) {
	if in.offset > 0 {
		// A crash may have come between the last byte and the publish.
		if _, err := in.verify(0, f.digest); err == nil {
			return "", nil
		}
	}
	for again := false; ; again = true {
		resumed := in.offset > 0
		source, pieces, err := f.bring(ctx, in, src)
		// Out of range: upstream has nothing behind what is here. That may
		// be all there is, or more than there should be.
		outOfRange := errdefs.IsOutOfRange(err) && in.offset > 0
		if err != nil && !outOfRange {
			return source, err
		}
		_, verr := in.verify(0, f.digest)
		if verr == nil {
			return source, nil
		}
		if err == nil {
			err = fmt.Errorf("%s sent wrong bytes: %v: %w", source, verr, errdefs.ErrDataLoss) //nolint:errorlint // its kind is for writers
		}
		if again || !(resumed || outOfRange || pieces > 1) {
			// Nobody goes on from these bytes. Readers are told by finish: who
			// asked again before would join this fill, and get its error once more.
			in.forget()
			return source, err
		}
		if rerr := f.restart(ctx, in); rerr != nil {
			return source, errors.Join(err, rerr)
		}
		f.store.logger.WarnContext(ctx, "fill: resumed bytes do not fit, fetching the whole", "digest", f.digest, "err", err)
	}
}

// restart throws the bytes away. A reader that has had some of them cannot go
// on: what it has may be wrong. Readers are told before the file shrinks under
// them, so that none takes the new end for the blob's.
func (f *Fill) restart(ctx context.Context, in *ingest) error {
	f.update(func() {
		f.received = 0
		f.generation++
		if f.window != nil {
			f.window.reset()
		}
	})
	if f.unstored != nil {
		in.forget()
		f.letGo()
		return nil //nolint:nilerr // the fill goes on without the disk
	}
	if err := in.truncate(); err != nil {
		in.forget()
		f.passThrough(ctx, in, err)
	}
	return nil
}

// bring appends what is missing, over as many attempts as the policy allows.
// pieces is how many upstream bodies went into the ingest.
func (f *Fill) bring(ctx context.Context, in *ingest, src Source) (source string, pieces int, err error) {
	policy := f.store.policy
	prefixTried := false
	for fruitless := 0; ; {
		before := in.offset
		from, err := f.attempt(ctx, in, src)
		if from != "" {
			source = from
			pieces++
		}
		if err == nil {
			return source, pieces, nil
		}
		if from == "" && before > 0 && !prefixTried && errors.As(err, new(*stallError)) && ctx.Err() == nil {
			// An upstream that ignores Range sends what is there already, and
			// takes too long for that. From the start, it makes progress.
			prefixTried = true
			if err := f.restart(ctx, in); err != nil {
				return source, pieces, err
			}
			continue
		}
		if got := in.offset - before; got >= policy.spanBytes() || got > 0 && !errors.As(err, new(*stallError)) {
			fruitless = 0
		} else {
			fruitless++
		}
		// As long as no upstream answered, clients are better served
		// elsewhere, at once. After that they hang on our connection, and it
		// is worth going on.
		if isFinal(err) || ctx.Err() != nil || pieces == 0 || fruitless >= policy.Attempts {
			return source, pieces, err
		}
		if err := pause(ctx, policy.Pause<<min(max(fruitless-1, 0), 6)); err != nil {
			return source, pieces, err
		}
	}
}

// isFinal tells errors that another attempt does not change.
func isFinal(err error) bool {
	return errdefs.IsNotFound(err) || errdefs.IsPermissionDenied(err) || errdefs.IsUnauthorized(err) ||
		errdefs.IsInvalidArgument(err) || errdefs.IsOutOfRange(err) || errors.As(err, new(*passError))
}

// attempt opens the source once and appends what it sends. from is empty if
// it did not answer.
func (f *Fill) attempt(ctx context.Context, in *ingest, src Source) (from string, err error) {
	watch := newWatchdog(ctx, f.store.policy)
	defer watch.stop()
	stream, err := src.Open(watch.ctx, in.offset)
	if err != nil {
		return "", watch.explain(err)
	}
	defer stream.Body.Close()
	stream.Upstream = cmp.Or(stream.Upstream, "upstream") // "" means unanswered here
	if err := f.agreeOnSize(stream); err != nil {
		return "", err
	}
	if f.unstored == nil {
		if err := f.reserve(watch.ctx, in, f.size); err != nil {
			f.passThrough(ctx, in, err)
		}
	}
	in.hashBehind(f.size)
	defer in.hashHere()
	for first := true; ; first = false {
		buf := in.behind.lend()
		n, rerr := stream.Body.Read((*buf)[:nextPiece(in.offset)])
		if n > 0 {
			watch.progress(n)
			if err := f.append(watch.ctx, in, (*buf)[:n]); err != nil {
				return stream.Upstream, err
			}
			if first {
				letReadersGo()
			}
		}
		in.behind.giveBack(buf)
		if errors.Is(rerr, io.EOF) {
			return stream.Upstream, f.checkEnd(in, stream.Upstream)
		}
		if rerr != nil {
			return stream.Upstream, fmt.Errorf("read from %s at %d: %w", stream.Upstream, in.offset, watch.explain(rerr))
		}
	}
}

// letReadersGo has those who were just told of bytes go first, on this very processor:
// they would otherwise wait for another one, which upstream and the hash keep busy, or
// until a system call of the fill takes so long that Go's scheduler takes it away.
func letReadersGo() { runtime.Gosched() }

// nextPiece is how many bytes from offset on are written at a time: to where the next
// buffer's worth begins. The kernel keeps such a piece in one folio. With all pieces a
// few KiB off, as the first bytes of a body leave them, it needs six for each, and the
// time of a write grows by a third.
func nextPiece(offset int64) int64 { return copyBuffer - offset%copyBuffer }

// agreeOnSize takes the size that upstream announces, and refuses a later
// announcement that contradicts it: clients were told the first one. The hint
// from a manifest does not count here. Anyone can publish a manifest with a
// wrong size for somebody else's layer; the digest decides.
func (f *Fill) agreeOnSize(stream Stream) error {
	announced := stream.Size
	if f.size >= 0 && announced >= 0 && f.size != announced {
		return fmt.Errorf("%s announces %d bytes for %s, %d were announced before: %w",
			stream.Upstream, announced, f.digest, f.size, errdefs.ErrDataLoss)
	}
	if announced > MaxBlobSize {
		return fmt.Errorf("%s announces %d bytes for %s, at most %d are taken: %w",
			stream.Upstream, announced, f.digest, int64(MaxBlobSize), errdefs.ErrInvalidArgument)
	}
	f.update(func() {
		f.answered = true
		if f.size < 0 {
			f.size = max(-1, announced)
		}
	})
	return nil
}

func (f *Fill) append(ctx context.Context, in *ingest, p []byte) error {
	limit := int64(MaxBlobSize)
	if f.size >= 0 {
		limit = f.size
	}
	if in.offset+int64(len(p)) > limit {
		return fmt.Errorf("upstream sends more than the %d bytes of %s: %w", limit, f.digest, errdefs.ErrDataLoss)
	}
	if f.unstored == nil {
		if err := f.reserve(ctx, in, in.offset+int64(len(p))); err != nil {
			f.passThrough(ctx, in, err)
		}
	}
	if f.unstored == nil {
		n, err := f.write(ctx, in, p)
		if err == nil {
			f.update(func() { f.received = in.offset })
			return nil
		}
		f.passThrough(ctx, in, err)
		p = p[n:]
	}
	return f.keep(ctx, in, p)
}

// write appends to the ingest. A disk that is full gets a second chance.
func (f *Fill) write(ctx context.Context, in *ingest, p []byte) (int, error) {
	n, err := in.Write(p)
	if err == nil || !isFull(err) {
		return n, err
	}
	defer Hold(ctx)() // upstream is not to blame for the time that this takes
	need := max(f.size-in.offset, int64(len(p)))
	if rerr := f.store.makeRoom(ctx, need); rerr != nil {
		return n, fmt.Errorf("%w; %w", err, rerr)
	}
	more, err := in.Write(p[n:])
	return n + more, err
}

// checkEnd refuses a body that ended cleanly before its time.
func (f *Fill) checkEnd(in *ingest, upstream string) error {
	if f.size >= 0 && in.offset < f.size {
		return fmt.Errorf("%s ended %s at %d of %d bytes: %w", upstream, f.digest, in.offset, f.size, io.ErrUnexpectedEOF)
	}
	return nil
}

// pause waits about d: between half and all of it, so that fills that failed
// together do not come back together.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
