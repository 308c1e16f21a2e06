package maps

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Slots is access to the map slots: lookup tables, regions of one array.
type Slots struct {
	e   entries
	mem *ebpf.Memory // nil: read-only
}

// Capacity is the number of slots of all tables together.
func (a Slots) Capacity() uint32 { return a.e.m.MaxEntries() }

// Write fills the region t; slots has one backend for each of its slots. It
// is neither atomic nor ordered: packets must not be looking at the region.
// The put of the frontend that points to it comes later and is a system call,
// so whoever sees that frontend sees the whole table.
func (a Slots) Write(t Table, slots []BackendID) error {
	if err := t.Check(len(slots), a.Capacity()); err != nil {
		return fmt.Errorf("write table %s: %w", t, err)
	}
	if t.Length == 0 {
		return nil
	}
	if a.mem == nil {
		return fmt.Errorf("write table %s: %w", t, ebpf.ErrReadOnly)
	}
	b := make([]byte, len(slots)*slotBytes)
	toSlots(b, slots)
	if _, err := a.mem.WriteAt(b, int64(t.Offset)*slotBytes); err != nil {
		return fmt.Errorf("write table %s: %w", t, err)
	}
	a.e.writes.Add(1)
	return nil
}

// Read returns the content of the region t. The slice is the caller's.
func (a Slots) Read(t Table) ([]BackendID, error) {
	if err := t.Check(int(t.Length), a.Capacity()); err != nil {
		return nil, fmt.Errorf("read table %s: %w", t, err)
	}
	out := make([]BackendID, t.Length)
	if len(out) == 0 {
		return out, nil
	}
	if err := a.read(out, t.Offset); err != nil {
		return nil, fmt.Errorf("read table %s: %w", t, err)
	}
	return out, nil
}

// read fills out from offset: from memory, or slot by slot where that is not
// mapped.
func (a Slots) read(out []BackendID, offset uint32) error {
	if a.mem != nil {
		b := make([]byte, len(out)*slotBytes)
		if _, err := a.mem.ReadAt(b, int64(offset)*slotBytes); err != nil {
			return err
		}
		fromSlots(out, b)
		return nil
	}
	for i := range out {
		var id uint32
		if err := a.e.m.Lookup(offset+uint32(i), &id); err != nil {
			return err
		}
		out[i] = BackendID(id)
	}
	return nil
}
