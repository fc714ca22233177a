package unpack

import (
	"archive/tar"
	"path"
	"strings"
)

// place is where a file was dealt.
type place struct {
	hand *hand
	n    int64 // it is done once the hand has done as many
}

// ledger is what is known of the paths of a layer, all of them clean and absolute. It
// is sure of what it says and may know less than there is.
type ledger struct {
	// folders that this layer has made, and to which no link leads.
	folders map[string]struct{}
	// links may be symbolic links.
	links map[string]struct{}
	// files are those that may not be written yet.
	files map[string]place
	// lost is for when a link was made at a place that is not known: a folder is one
	// then only if the layer says so, and not because something is in it.
	lost bool
}

func newLedger() *ledger {
	l := &ledger{links: map[string]struct{}{}}
	l.forget()
	return l
}

// forget is for when a folder was taken away with all that is in it.
func (l *ledger) forget() {
	l.folders, l.files = map[string]struct{}{"/": {}}, map[string]place{}
}

// learn notes that a folder is there, with those above it, and reports whether that
// is sure: no link may lead there.
func (l *ledger) learn(name string) bool {
	var above []string
	for ; !l.isFolder(name); name = path.Dir(name) {
		if _, is := l.links[name]; is || l.lost {
			return false
		}
		above = append(above, name)
	}
	for _, a := range above {
		l.folders[a] = struct{}{}
	}
	return true
}

func (l *ledger) isFolder(name string) bool {
	_, is := l.folders[name]
	return is
}

// isNew says that an entry's folder is known, and that where it goes there is neither
// a folder nor a file that is not written yet.
func (l *ledger) isNew(name string) bool {
	_, file := l.files[name]
	return l.isFolder(path.Dir(name)) && !l.isFolder(name) && !file
}

const (
	// whiteout begins the name of what takes a file of the layers below away.
	// See https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
	whiteout = ".wh."
	// sparse begins the PAX records of a file with holes: its body has less bytes
	// than it.
	sparse = "GNU.sparse."
	// xattr begins the PAX records of extended attributes.
	xattr = "SCHILY.xattr."
)

func isWhiteout(name string) bool { return strings.HasPrefix(path.Base(name), whiteout) }

// isPlain says that an entry's body has as many bytes as its header says.
func isPlain(hdr *tar.Header) bool {
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeXGlobalHeader:
	default:
		return false
	}
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, sparse) {
			return false
		}
	}
	return true
}

func hasXattrs(hdr *tar.Header) bool {
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, xattr) {
			return true
		}
	}
	return false
}
