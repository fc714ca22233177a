package doctor

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// Budget is how far larder lets the store grow, in bytes: to MaxSize, or until
// MinFree is left on the disk, whatever comes first.
type Budget struct{ MaxSize, MinFree int64 }

// Threshold is free space in bytes below which the kubelet does something.
type Threshold struct {
	Free int64
	// Setting is the kubelet's, as in imageGCHighThresholdPercent 85; Effect is
	// what it does then.
	Setting, Effect string
}

// Least returns the free space in bytes down to which larder alone can fill a
// disk that has free bytes left and holds stored bytes of larder's.
func (b Budget) Least(free, stored int64) int64 {
	return max(b.MinFree, free+stored-b.MaxSize, 0)
}

// Reached returns the thresholds that a disk falls below once it has no more
// than least bytes free.
func Reached(least int64, thresholds []Threshold) []Threshold {
	var reached []Threshold
	for _, t := range thresholds {
		if least < t.Free {
			reached = append(reached, t)
		}
	}
	return reached
}

// ParseShare reads a share of total bytes, such as "30%", or a size such as
// "20GiB" or, as Kubernetes writes it, "20Gi".
func ParseShare(text string, total int64) (int64, error) {
	if number, ok := strings.CutSuffix(text, "%"); ok {
		percent, err := strconv.ParseFloat(number, 64)
		if err != nil || !(percent >= 0 && percent <= 100) {
			return 0, fmt.Errorf("%q: want 0%% to 100%%", text)
		}
		return int64(percent / 100 * float64(total)), nil
	}
	n, err := humanize.ParseBytes(text)
	if err != nil {
		return 0, fmt.Errorf("%q: want a share such as \"10%%\" or a size such as \"10Gi\"", text)
	}
	return int64(min(n, math.MaxInt64)), nil
}
