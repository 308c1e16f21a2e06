package ids

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ebb-lb/ebb/maps"
)

// BackendKey is what makes a backend the same backend.
type BackendKey struct {
	Port maps.ServicePortID
	Addr netip.AddrPort
}

// Lease is an index given to a backend.
type Lease struct {
	ID maps.BackendID
	// Generation is never 0, and never the one the index had before.
	Generation uint32
	// Reused means that the index belonged to the backend Previous.
	Reused   bool
	Previous BackendKey
}

// holder is the backend an index belongs to.
type holder struct {
	key        BackendKey
	generation uint32
	gone       bool
	since      time.Time // when it went; zero while that is not known
}

// Backends hands out indexes of the backends map. An index that was never
// used comes first, lowest first; then the one whose backend has been gone
// longest, if it went at least the grace period ago and has no live flow. So
// a generation is told from its predecessors as long as that is possible.
type Backends struct {
	capacity uint32
	grace    time.Duration
	holders  map[maps.BackendID]holder
	living   map[BackendKey]maps.BackendID
	unused   lowest
	gone     []maps.BackendID // retired with a time, oldest first

	// The round: what Take judges by. gone[:scanned] are not reusable in it.
	now     time.Time
	live    func(maps.BackendID) int
	scanned int
}

// NewBackends returns Backends that go on from the content of the backends
// map, which has capacity entries. Gone entries are not reused until Retire
// has told since when they are gone. Where a backend has several indexes the
// lowest is its index.
func NewBackends(capacity uint32, grace time.Duration, have map[maps.BackendID]maps.Backend) *Backends {
	b := &Backends{
		capacity: capacity,
		grace:    grace,
		holders:  make(map[maps.BackendID]holder, len(have)),
		living:   make(map[BackendKey]maps.BackendID, len(have)),
		unused:   newLowest(0, capacity),
	}
	for id, v := range have {
		if v.State == maps.Free {
			continue
		}
		key := BackendKey{Port: v.ServicePort, Addr: v.Addr}
		b.holders[id] = holder{key: key, generation: v.Generation, gone: v.State == maps.Gone}
		b.unused.reserve(uint32(id))
		if other, ok := b.living[key]; v.State != maps.Gone && (!ok || id < other) {
			b.living[key] = id
		}
	}
	return b
}

// Begin starts a round: until the next one, Take judges by the time now and
// by live, which returns the number of live flows of an index, negative if it
// does not know. A nil live knows nothing.
func (b *Backends) Begin(now time.Time, live func(maps.BackendID) int) {
	b.now, b.live, b.scanned = now, live, 0
}

// Len returns the number of indexes that are in use, or were and keep their
// backend's name until they are used again.
func (b *Backends) Len() int { return len(b.holders) }

// Lookup returns index and generation of a backend that was taken and not
// retired since.
func (b *Backends) Lookup(key BackendKey) (id maps.BackendID, generation uint32, ok bool) {
	id, ok = b.living[key]
	return id, b.holders[id].generation, ok
}

// Take gives the backend key an index. If it is living it gets another one, and the
// one before, which is to be retired, is not found any more. A backend that returns after it was retired is a new one, also on its old index. The
// error wraps ErrFull.
func (b *Backends) Take(key BackendKey) (Lease, error) {
	lease, ok := b.takeUnused()
	if !ok {
		lease, ok = b.takeGone()
	}
	if !ok {
		return Lease{}, fmt.Errorf("take index for backend %s: %w: %d of %d are in use, %d belong to backends gone too recently or with flows; raise --max-backends",
			key.Addr, ErrFull, len(b.living), b.capacity, len(b.holders)-len(b.living))
	}
	b.holders[lease.ID] = holder{key: key, generation: lease.Generation}
	b.living[key] = lease.ID
	return lease, nil
}

func (b *Backends) takeUnused() (Lease, bool) {
	n, ok := b.unused.take()
	return Lease{ID: maps.BackendID(n), Generation: 1}, ok
}

func (b *Backends) takeGone() (Lease, bool) {
	for ; b.scanned < len(b.gone); b.scanned++ {
		id := b.gone[b.scanned]
		before := b.holders[id]
		if b.now.Sub(before.since) < b.grace {
			return Lease{}, false // and the rest went later still
		}
		if b.live == nil || b.live(id) != 0 {
			continue
		}
		// What was passed over are few, what follows may be all there are.
		copy(b.gone[1:b.scanned+1], b.gone[:b.scanned])
		b.gone = b.gone[1:]
		return Lease{
			ID: id, Generation: following(before.generation),
			Reused: true, Previous: before.key,
		}, true
	}
	return Lease{}, false
}

// following returns the generation after g. 0 means "no backend" to readers.
func following(g uint32) uint32 {
	if g++; g != 0 {
		return g
	}
	return 1
}

// Retire declares the backend on id gone since the time given: it is not found
// any more, and its index may be reused later.
func (b *Backends) Retire(id maps.BackendID, since time.Time) {
	h, ok := b.holders[id]
	if !ok || h.gone && !h.since.IsZero() {
		return
	}
	if b.living[h.key] == id {
		delete(b.living, h.key)
	}
	h.gone, h.since = true, since
	b.holders[id] = h
	b.queue(id)
}

// GoneSince returns since when the backend with that generation is gone, if
// it is and Retire has told.
func (b *Backends) GoneSince(id maps.BackendID, generation uint32) (time.Time, bool) {
	h := b.holders[id]
	return h.since, h.gone && h.generation == generation && !h.since.IsZero()
}

// queue puts id, whose backend is gone, where its time belongs.
func (b *Backends) queue(id maps.BackendID) {
	since := b.holders[id].since
	at, _ := slices.BinarySearchFunc(b.gone, since, func(other maps.BackendID, since time.Time) int {
		if b.holders[other].since.After(since) {
			return 1
		}
		return -1 // equal times stay in the order they came
	})
	b.gone = slices.Insert(b.gone, at, id)
	b.scanned = min(b.scanned, at)
}
