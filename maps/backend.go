package maps

import (
	"fmt"

	"github.com/ebb-lb/ebb/bpf"
)

// Backends is access to the map backends, an array by BackendID.
type Backends struct{ e entries }

// Capacity is the number of backends there can be; ids are below it.
func (a Backends) Capacity() uint32 { return a.e.m.MaxEntries() }

// Put replaces the backend at id. The kernel does not replace it in one step:
// a packet may see new fields next to old ones, which is why an index is given
// to another backend only when nothing points at it.
func (a Backends) Put(id BackendID, b Backend) error {
	if err := id.Within(a.Capacity()); err != nil {
		return fmt.Errorf("put backend %d: %w", id, err)
	}
	if err := b.Validate(); err != nil {
		return fmt.Errorf("put backend %d: %w", id, err)
	}
	k, v := uint32(id), toBackend(b)
	if err := a.e.put(&k, &v); err != nil {
		return fmt.Errorf("put backend %d: %w", id, err)
	}
	return nil
}

// All reads every backend that is not Free. The map returned is the caller's.
func (a Backends) All() (map[BackendID]Backend, error) {
	out := make(map[BackendID]Backend)
	err := each(a.e.m, func(k *uint32, v *bpf.LayoutBackend) bool {
		if State(v.State) != Free {
			out[BackendID(*k)] = fromBackend(v)
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read backends: %w", err)
	}
	return out, nil
}
