package ownfile

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Mark begins the first line of a file of larder's; the SHA-256 of all that follows that line ends it. A changed format
// needs another mark, and code that still knows the old one.
type Mark string

// On returns body as the text of a file, mark and all.
func (m Mark) On(body string) string { return string(m) + sum(body) + "\n" + body }

// Parse tells whether larder wrote text, and whether it was changed since.
func (m Mark) Parse(text string) (ours, edited bool) {
	first, body, _ := strings.Cut(text, "\n")
	want, ours := strings.CutPrefix(first, string(m))
	return ours, ours && want != sum(body)
}

func sum(body string) string {
	h := sha256.Sum256([]byte(body))
	return hex.EncodeToString(h[:])
}
