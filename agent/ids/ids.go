// Package ids hands out the numbers that appear in the maps: service port ids,
// backend indexes with their generations, regions of slots. It knows when a
// number may be used again. It deliberately knows no service, no policy and
// no clock, and does no I/O: it is seeded with what the maps hold, and told
// the time.
//
// No type here is safe for concurrent use.
package ids

import (
	"errors"
	"slices"
)

// ErrFull is wrapped by the error of every Take that found no room. The
// message names the flag that makes more.
var ErrFull = errors.New("no room left")

// lowest hands out the lowest number below end that is not in use.
type lowest struct {
	next  uint32              // never handed out from here on
	end   uint32              // first number there is not
	taken map[uint32]struct{} // in use from the start, at or above next
	back  []uint32            // given back, all below next, descending
}

func newLowest(first, end uint32) lowest {
	return lowest{next: first, end: end, taken: make(map[uint32]struct{})}
}

// reserve marks n as in use. It may only be called before the first take.
func (l *lowest) reserve(n uint32) { l.taken[n] = struct{}{} }

func (l *lowest) take() (uint32, bool) {
	if last := len(l.back) - 1; last >= 0 {
		n := l.back[last]
		l.back = l.back[:last]
		return n, true
	}
	for ; l.next < l.end; l.next++ {
		if _, ok := l.taken[l.next]; !ok {
			l.next++
			return l.next - 1, true
		}
		delete(l.taken, l.next)
	}
	return 0, false
}

func (l *lowest) give(n uint32) {
	if n >= l.next {
		delete(l.taken, n)
		return
	}
	at, _ := slices.BinarySearchFunc(l.back, n, func(have, n uint32) int {
		return int(int64(n) - int64(have))
	})
	l.back = slices.Insert(l.back, at, n)
}
