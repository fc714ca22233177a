package main

import (
	"fmt"
	"io"

	"github.com/dustin/go-humanize"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/larder-project/larder/remotes"
)

// lines writes one line for each blob that is done.
type lines struct{ w io.Writer }

func (l lines) blob(p remotes.BlobProgress) {
	if p.Done {
		fmt.Fprintf(l.w, "%s  %9s  %s\n", p.Digest, humanize.IBytes(uint64(p.Size)), word(p.Outcome))
	}
}

func (lines) close(bool) {}

// word says how a blob came.
func word(o remotes.Outcome) string {
	switch o {
	case remotes.Hit:
		return "stored already"
	case remotes.Fill:
		return "fetched for someone else"
	default:
		return "fetched"
	}
}

// bars draws one bar for each blob that is fetched.
type bars struct {
	progress *mpb.Progress
	byDigest map[string]*mpb.Bar
}

func newBars(w io.Writer) *bars {
	return &bars{progress: mpb.New(mpb.WithOutput(w), mpb.WithWidth(40)), byDigest: map[string]*mpb.Bar{}}
}

func (b *bars) blob(p remotes.BlobProgress) {
	key := p.Digest.String()
	bar, ok := b.byDigest[key]
	if !ok {
		name := shortDigest(p.Digest)
		bar = b.progress.AddBar(max(p.Size, 0),
			mpb.PrependDecorators(decor.Name(name+" ")),
			mpb.AppendDecorators(
				decor.OnComplete(decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace), humanize.IBytes(uint64(max(p.Size, 0)))),
				decor.OnComplete(decor.AverageSpeed(decor.SizeB1024(0), " % .1f", decor.WCSyncSpace), " "+word(p.Outcome)),
			),
		)
		b.byDigest[key] = bar
	}
	if p.Size > 0 && !p.Done {
		bar.SetTotal(p.Size, false)
	}
	bar.SetCurrent(p.Received)
	if p.Done {
		bar.SetTotal(p.Received, true)
	}
}

func (b *bars) close(ok bool) {
	for _, bar := range b.byDigest {
		if !ok {
			bar.Abort(false)
		}
	}
	b.progress.Wait()
}
