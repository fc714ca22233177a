package main

import (
	"bytes"
	"fmt"
	"os"
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
