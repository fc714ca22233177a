package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ticks is how many of the kernel's units of time a second has: Linux has it so on
// each architecture that larder runs on.
const ticks = 100

// busy is how many seconds the machine's processors have worked, whatever for:
// what a server saves may be somebody else's to do.
func busy() (float64, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	var user, nice, system, idle, wait, irq, soft float64
	if _, err := fmt.Sscanf(string(line), "cpu %f %f %f %f %f %f %f", &user, &nice, &system, &idle, &wait, &irq, &soft); err != nil {
		return 0, fmt.Errorf("/proc/stat: %q: %w", line, err)
	}
	return (user + nice + system + irq + soft) / ticks, nil
}

// used is how many seconds of processors the processes of a group have had. Beside
// it the machine may have had others to work for.
func used(group int) (float64, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// Behind the name: state, parent, group, and from the twelfth on the times.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) < 13 || string(fields[2]) != strconv.Itoa(group) {
			continue
		}
		for _, field := range fields[11:13] {
			n, err := strconv.ParseFloat(string(field), 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %q: %w", path, text, err)
			}
			sum += n / ticks
		}
	}
	return sum, nil
}

// meter is what the machine, a server and this program have worked up to now.
type meter struct{ machine, server, client float64 }

// sub is what was worked since before, for each of n.
func (m meter) sub(before meter, n float64) cost {
	server := (m.server - before.server) / n
	return cost{machine: (m.machine - before.machine) / n, server: server, both: server + (m.client-before.client)/n}
}

// cost is seconds of processors for one of what is measured: the whole machine's,
// the server's, and those of server and client together.
type cost struct{ machine, server, both float64 }

func readMeter(group int) (m meter, err error) {
	if m.machine, err = busy(); err != nil {
		return m, err
	}
	var self unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &self); err != nil {
		return m, fmt.Errorf("getrusage: %w", err)
	}
	m.client = time.Duration(self.Utime.Nano() + self.Stime.Nano()).Seconds()
	m.server, err = used(group)
	return m, err
}
