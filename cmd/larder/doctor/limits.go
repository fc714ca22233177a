package doctor

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// wantFiles is enough for the pulls of a busy node: a client costs a descriptor
// for its connection and one for the blob.
const wantFiles = 4096

// DaemonFiles says how many files the daemon of that process may open.
func DaemonFiles(pid int) Result {
	const check = "open files"
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return cannotRead(check, err)
	}
	limit, ok := maxOpenFiles(string(text))
	if !ok {
		return Bad(Unknown, check, fmt.Sprintf("/proc/%d/limits does not say how many files the daemon may open", pid), "")
	}
	return files(limit, "the daemon")
}

// OwnFiles says the same of a daemon that would be started from here.
func OwnFiles() Result {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return cannotRead("open files", fmt.Errorf("getrlimit: %w", err))
	}
	// Go raises the soft limit to the hard one by itself.
	return files(limit.Max, "a daemon started from here")
}

func files(limit uint64, who string) Result {
	found := fmt.Sprintf("%s may open %d", who, limit)
	if limit == unix.RLIM_INFINITY {
		found = who + " may open any number"
	}
	if limit < wantFiles {
		return Bad(Warning, "open files", fmt.Sprintf("%s, want %d", found, wantFiles),
			"set LimitNOFILE=65536 in larder's systemd unit, or ulimit -n 65536 before larder serve; restart the daemon")
	}
	return Fine("open files", "%s", found)
}

// maxOpenFiles finds the soft limit in proc_pid_limits(5).
func maxOpenFiles(text string) (uint64, bool) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "Max open files")
		fields := strings.Fields(rest)
		if !ok || len(fields) == 0 {
			continue
		}
		if fields[0] == "unlimited" {
			return unix.RLIM_INFINITY, true
		}
		n, err := strconv.ParseUint(fields[0], 10, 64)
		return n, err == nil
	}
	return 0, false
}
