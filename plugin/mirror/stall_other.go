//go:build !linux

package mirror

import (
	"syscall"
	"time"
)

// setStall knows only Linux's way. Elsewhere larder is not run, but tested.
func setStall(syscall.RawConn, time.Duration) error { return nil }
