package cache

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// pages is a part of a file in the kernel's page cache. On a Disk that is not
// the machine's own there is none: nothing is cached, and nothing dropped.
type pages struct {
	conn   syscall.RawConn // nil: none
	off, n int64
}

// pagesOf wants off and n to be multiples of the page size.
func pagesOf(f File, off, n int64) pages {
	p := pages{off: off, n: n}
	if c, ok := f.(syscall.Conn); ok {
		if conn, err := c.SyscallConn(); err == nil {
			p.conn = conn
		}
	}
	return p
}

// cached reports whether at least half of the part is in memory. A kernel
// before 6.5 cannot tell: false.
func (p pages) cached() bool {
	var stat unix.Cachestat_t
	err := p.control(func(fd uintptr) error {
		return unix.Cachestat(uint(fd), &unix.CachestatRange{Off: uint64(p.off), Len: uint64(p.n)}, &stat, 0)
	})
	return err == nil && int64(stat.Cache)*int64(os.Getpagesize()) >= p.n/2
}

// drop takes the part out of memory, unless it is not written yet. It is an
// advice: that it is not followed is no error.
func (p pages) drop() { p.advise(unix.FADV_DONTNEED) }

// write has the kernel begin to write the part. It is an advice, too.
func (p pages) write() {
	_ = p.control(func(fd uintptr) error {
		return unix.SyncFileRange(int(fd), p.off, p.n, unix.SYNC_FILE_RANGE_WRITE)
	})
}

func (p pages) advise(advice int) {
	_ = p.control(func(fd uintptr) error { return unix.Fadvise(int(fd), p.off, p.n, advice) })
}

func (p pages) control(do func(fd uintptr) error) error {
	if p.conn == nil {
		return unix.ENOSYS
	}
	var err error
	if cerr := p.conn.Control(func(fd uintptr) { err = do(fd) }); cerr != nil {
		return cerr
	}
	return err
}
