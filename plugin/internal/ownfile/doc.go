// Package ownfile is about files that larder writes into folders of others, here containerd's: they carry a mark, by
// which larder knows its own, and sees whether somebody else changed them; a folder is changed by one run at a time, and
// is on disk before the next step.
package ownfile
