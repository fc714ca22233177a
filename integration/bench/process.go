package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// quiet is for how long a process's memory has to stay the same to have settled.
const quiet = time.Second

// memoryOf is a line of a process's status, in KiB.
func memoryOf(pid int, name string) (kib float64, err error) {
	text := field(fmt.Sprintf("/proc/%d/status", pid), name)
	if _, err := fmt.Sscanf(text, "%f kB", &kib); err != nil {
		return 0, fmt.Errorf("%s of process %d: %q: %w", name, pid, text, err)
	}
	return kib, nil
}

// group are the processes of a process group: a part's own and its children.
func group(leader int) (pids []int, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return nil, fmt.Errorf("list processes: %w", err)
		}
		// pid (name) state parent group; a name may have anything in it.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) < 3 || string(fields[2]) != strconv.Itoa(leader) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// settled is a process's resident memory in KiB, when it has not changed for some time.
func settled(ctx context.Context, srv *server) (kib float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	since := time.Now()
	waited := poll(ctx, func() bool {
		now, failed := memoryOf(srv.proc.PID(), "VmRSS")
		if failed != nil {
			err = failed
			return true
		}
		if off := now - kib; off > kib/100 || off < -kib/100 {
			kib, since = now, time.Now()
		}
		return time.Since(since) >= quiet
	})
	return kib, errors.Join(err, waited)
}
