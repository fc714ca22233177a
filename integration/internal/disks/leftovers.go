package disks

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Leftovers are the mounts and loop devices on anything below a folder.
func Leftovers(base string) []string {
	var left []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{fmt.Sprintf("mounts: %v", err)}
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, base) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		// Not there any more: detached meanwhile.
		if file, err := os.ReadFile(l); err == nil && strings.HasPrefix(string(file), base) {
			left = append(left, fmt.Sprintf("loop device %s on %s", strings.Split(l, "/")[3], strings.TrimSpace(string(file))))
		}
	}
	return left
}
