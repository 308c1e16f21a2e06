package load

import (
	"math"
	"math/bits"
	"time"
)

// histogram counts durations in buckets whose width is at most a sixteenth of
// their value, from a microsecond up. The zero value is empty.
type histogram struct {
	counts []int
	total  int
}

func bucketOf(d time.Duration) int {
	us := uint64(max(0, d.Microseconds()))
	shift := max(0, bits.Len64(us)-5)
	return shift<<4 + int(us>>shift)
}

// upper returns the largest duration of a bucket.
func upper(bucket int) time.Duration {
	if bucket < 32 {
		return time.Duration(bucket) * time.Microsecond
	}
	shift := bucket>>4 - 1
	return time.Duration((bucket&15+17)<<shift-1) * time.Microsecond
}

func (h *histogram) add(d time.Duration) {
	b := bucketOf(d)
	for len(h.counts) <= b {
		h.counts = append(h.counts, 0)
	}
	h.counts[b]++
	h.total++
}

// quantile returns a duration that a share q of all durations does not
// exceed. It is 0 for an empty histogram.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int(math.Ceil(q * float64(h.total)))
	for b, n := range h.counts {
		if rank -= n; rank <= 0 && h.total > 0 {
			return upper(b)
		}
	}
	return 0
}
