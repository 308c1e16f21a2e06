package maps

import (
	"fmt"

	"github.com/ebb-lb/ebb/bpf"
)

// ServicePorts is access to the map service_ports.
type ServicePorts struct{ e entries }

// Put inserts or replaces the names behind id. A full map is ErrFull.
func (a ServicePorts) Put(id ServicePortID, s ServicePort) error {
	if err := s.Validate(); err != nil {
		return fmt.Errorf("put service port %d (%s): %w", id, s, err)
	}
	k, v := uint32(id), toServicePort(s)
	if err := a.e.put(&k, &v); err != nil {
		return fmt.Errorf("put service port %d (%s): %w", id, s, err)
	}
	return nil
}

// Delete forgets id. An absent entry is not an error.
func (a ServicePorts) Delete(id ServicePortID) error {
	k := uint32(id)
	if err := a.e.del(&k); err != nil {
		return fmt.Errorf("delete service port %d: %w", id, err)
	}
	return nil
}

// All reads every entry. The map returned is the caller's.
func (a ServicePorts) All() (map[ServicePortID]ServicePort, error) {
	out := make(map[ServicePortID]ServicePort)
	err := each(a.e.m, func(k *uint32, v *bpf.LayoutServicePort) bool {
		out[ServicePortID(*k)] = fromServicePort(v)
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read service ports: %w", err)
	}
	return out, nil
}
