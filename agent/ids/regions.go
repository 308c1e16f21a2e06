package ids

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/ebb-lb/ebb/maps"
)

// Held is a region nobody uses any more but readers may still see.
type Held struct {
	Table maps.Table
	Until time.Time
}

// Regions hands out regions of the slots map, first fit. A released region is
// kept back until a time the caller gives.
type Regions struct {
	capacity uint32
	free     []maps.Table // sorted by offset, neighbours merged
	held     []Held
	heldSize uint64
}

// NewRegions returns Regions of a slots map with capacity slots, of which the
// tables used are in use. Overlapping tables are allowed; parts beyond the
// capacity are ignored.
func NewRegions(capacity uint32, used []maps.Table) *Regions {
	r := &Regions{capacity: capacity}
	sorted := slices.SortedFunc(slices.Values(used), func(a, b maps.Table) int { return cmp.Compare(a.Offset, b.Offset) })
	next := uint64(0)
	for _, t := range sorted {
		r.appendFree(next, min(uint64(t.Offset), uint64(capacity)))
		next = max(next, end(t))
	}
	r.appendFree(next, uint64(capacity))
	return r
}

func (r *Regions) appendFree(from, to uint64) {
	if from < to {
		r.free = append(r.free, region(from, to))
	}
}

func region(from, to uint64) maps.Table {
	return maps.Table{Offset: uint32(from), Length: uint32(to - from)}
}

func end(t maps.Table) uint64 { return uint64(t.Offset) + uint64(t.Length) }

// Take returns the first free region of that length, which is not 0. The error
// wraps ErrFull.
func (r *Regions) Take(length uint32) (maps.Table, error) {
	for i, f := range r.free {
		if f.Length < length {
			continue
		}
		if f.Length == length {
			r.free = slices.Delete(r.free, i, i+1)
		} else {
			r.free[i] = maps.Table{Offset: f.Offset + length, Length: f.Length - length}
		}
		return maps.Table{Offset: f.Offset, Length: length}, nil
	}
	free, largest := r.room()
	return maps.Table{}, fmt.Errorf("take table of %d slots: %w: %d of %d are free, %d in one piece, %d were in use a moment ago; raise --max-slots",
		length, ErrFull, free, r.capacity, largest, r.heldSize)
}

func (r *Regions) room() (free uint64, largest uint32) {
	for _, f := range r.free {
		free += uint64(f.Length)
		largest = max(largest, f.Length)
	}
	return free, largest
}

// Used returns the number of slots that are not free; those readers may still
// see are not.
func (r *Regions) Used() uint32 {
	free, _ := r.room()
	return r.capacity - uint32(free)
}

// Release gives back a region that readers may still see until the time given.
func (r *Regions) Release(t maps.Table, until time.Time) {
	r.held = append(r.held, Held{Table: t, Until: until})
	r.heldSize += uint64(t.Length)
}

// Reclaim makes released regions whose time has come available.
func (r *Regions) Reclaim(now time.Time) {
	r.held = slices.DeleteFunc(r.held, func(h Held) bool {
		if now.Before(h.Until) {
			return false
		}
		r.heldSize -= uint64(h.Table.Length)
		r.insert(h.Table)
		return true
	})
}

// Held returns the released regions that are not available yet. The slice is
// the caller's.
func (r *Regions) Held() []Held { return slices.Clone(r.held) }

// Reserve takes what is free of t and returns it: nothing, t, or pieces of it.
func (r *Regions) Reserve(t maps.Table) []maps.Table {
	var taken, rest []maps.Table
	for _, f := range r.free {
		from, to := max(uint64(f.Offset), uint64(t.Offset)), min(end(f), end(t))
		if from >= to {
			rest = append(rest, f)
			continue
		}
		taken = append(taken, region(from, to))
		if uint64(f.Offset) < from {
			rest = append(rest, region(uint64(f.Offset), from))
		}
		if to < end(f) {
			rest = append(rest, region(to, end(f)))
		}
	}
	r.free = rest
	return taken
}

// insert puts t among the free regions and merges it with its neighbours.
func (r *Regions) insert(t maps.Table) {
	if t.Length == 0 {
		return
	}
	at, _ := slices.BinarySearchFunc(r.free, t.Offset, func(f maps.Table, offset uint32) int {
		return cmp.Compare(f.Offset, offset)
	})
	from, to, first, last := uint64(t.Offset), end(t), at, at
	if at > 0 && end(r.free[at-1]) == from {
		first, from = at-1, uint64(r.free[at-1].Offset)
	}
	if at < len(r.free) && uint64(r.free[at].Offset) == to {
		last, to = at+1, end(r.free[at])
	}
	r.free = slices.Replace(r.free, first, last, region(from, to))
}
