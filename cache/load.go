package cache

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// maxStalled is the share of the last ten seconds, in percent, in which tasks
// of a node may have waited for its disks before it counts as busy. A scrub's
// own reads are some of that.
const maxStalled = 30

// BusyAbove returns what a ScrubPolicy asks: whether the load of the node in
// the last minute is above maxLoad for each of its cores (proc_loadavg(5)), or
// its tasks wait for disks more than they should (PSI, where the kernel has
// it).
func BusyAbove(maxLoad float64) func() string {
	return func() string {
		if text, err := os.ReadFile("/proc/loadavg"); err == nil {
			if load, ok := parseLoad(string(text)); ok && load > maxLoad*float64(runtime.NumCPU()) {
				return fmt.Sprintf("the load is %.1f", load)
			}
		}
		if text, err := os.ReadFile("/proc/pressure/io"); err == nil {
			if stalled, ok := parseStalled(string(text)); ok && stalled > maxStalled {
				return fmt.Sprintf("tasks wait for disks %.0f %% of the time", stalled)
			}
		}
		return ""
	}
}

// parseLoad reads the load of the last minute.
func parseLoad(text string) (float64, bool) {
	first, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	load, err := strconv.ParseFloat(first, 64)
	return load, err == nil
}

// parseStalled reads "some avg10=1.23 …": the share of time in which at least
// one task waited.
func parseStalled(text string) (float64, bool) {
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "some" {
			continue
		}
		avg, ok := strings.CutPrefix(fields[1], "avg10=")
		if !ok {
			return 0, false
		}
		stalled, err := strconv.ParseFloat(avg, 64)
		return stalled, err == nil
	}
	return 0, false
}
