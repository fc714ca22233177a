package cache

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"testing"
	"testing/synctest"
)

// slowHash is a hash that takes a piece only when it is let.
type slowHash struct {
	hash.Hash
	let chan struct{}
}

func (g slowHash) Write(p []byte) (int, error) {
	<-g.let
	return g.Hash.Write(p)
}

// TestBehindLends: no buffer is lent again before what was in it is hashed, and no
// more than there are.
func TestBehindLends(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := slowHash{sha256.New(), make(chan struct{})}
		b := newBehind(h, &buffers{}, 3)
		var whole []byte
		fill := func(buf *[]byte, text string) {
			whole = append(whole, text...)
			n := copy(*buf, text)
			if text == "abcd" { // in two pieces, as when the disk was full in between
				b.write((*buf)[:1])
				b.write((*buf)[1:n])
			} else {
				b.write((*buf)[:n])
			}
			b.giveBack(buf)
		}
		for _, text := range []string{"abcd", "efgh", "ijkl"} {
			fill(b.lend(), text)
		}
		lent := make(chan *[]byte)
		go func() { lent <- b.lend() }()
		synctest.Wait()
		select {
		case <-lent:
			t.Fatal("a buffer is lent that is not hashed")
		default:
		}
		h.let <- struct{}{} // half of the first
		synctest.Wait()
		select {
		case <-lent:
			t.Fatal("a buffer is lent of which half is hashed")
		default:
		}
		h.let <- struct{}{}
		fill(<-lent, "mnop")
		close(h.let)
		b.stop()
		if want := sha256.Sum256(whole); !bytes.Equal(h.Sum(nil), want[:]) {
			t.Errorf("hash of %q is wrong", whole)
		}
	})
}

// TestBehindHashesHere: with one buffer there is no goroutine, and nothing to wait for.
func TestBehindHashesHere(t *testing.T) {
	t.Parallel()
	h := sha256.New()
	b := newBehind(h, &buffers{}, 1)
	for range 3 {
		buf := b.lend()
		copy(*buf, "abc")
		b.write((*buf)[:3])
		b.giveBack(buf)
	}
	want := sha256.Sum256([]byte("abcabcabc"))
	if !bytes.Equal(h.Sum(nil), want[:]) {
		t.Error("not all is hashed before stop")
	}
	b.stop()
}
