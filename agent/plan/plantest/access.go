package plantest

import (
	"net/netip"

	"github.com/ebb-lb/ebb/maps"
)

// Frontends is the accessor of the frontends.
type Frontends struct{ k *Kernel }

// ServicePorts is the accessor of the service ports.
type ServicePorts struct{ k *Kernel }

// Backends is the accessor of the backends.
type Backends struct{ k *Kernel }

// Slots is the accessor of the slots.
type Slots struct{ k *Kernel }

// SourceRanges is the accessor of the source ranges.
type SourceRanges struct{ k *Kernel }

// SourceRanges stands for maps.Set.SourceRanges.
func (k *Kernel) SourceRanges() SourceRanges { return SourceRanges{k} }

// Put behaves as maps.SourceRanges.Put.
func (a SourceRanges) Put(r maps.SourceRange) error {
	return a.k.write(nothing, func() error { return a.k.Fake.SourceRanges().Put(r) }, nothing)
}

// Delete behaves as maps.SourceRanges.Delete.
func (a SourceRanges) Delete(r maps.SourceRange) error {
	return a.k.write(nothing, func() error { return a.k.Fake.SourceRanges().Delete(r) }, nothing)
}

// All behaves as maps.SourceRanges.All.
func (a SourceRanges) All() (map[maps.SourceRange]struct{}, error) {
	return a.k.Fake.SourceRanges().All()
}

// Addresses is the accessor of the addresses of services.
type Addresses struct{ k *Kernel }

// Addresses stands for maps.Set.Addresses.
func (k *Kernel) Addresses() Addresses { return Addresses{k} }

// Put behaves as maps.Addresses.Put.
func (a Addresses) Put(addr netip.Addr, f maps.AddressFlags) error {
	guard := func() {
		for front := range a.k.content.frontends {
			if front.Addr == addr {
				return
			}
		}
		a.k.violate("address %s is known before there is a frontend on it", addr)
	}
	return a.k.write(guard, func() error { return a.k.Fake.Addresses(maps.ServiceAddress).Put(addr, f) }, nothing)
}

// Delete behaves as maps.Addresses.Delete.
func (a Addresses) Delete(addr netip.Addr) error {
	return a.k.write(nothing, func() error { return a.k.Fake.Addresses(maps.ServiceAddress).Delete(addr) }, nothing)
}

// All behaves as maps.Addresses.All.
func (a Addresses) All() (map[netip.Addr]maps.AddressFlags, error) {
	return a.k.Fake.Addresses(maps.ServiceAddress).All()
}

// Frontends stands for maps.Set.Frontends.
func (k *Kernel) Frontends() Frontends { return Frontends{k} }

// ServicePorts stands for maps.Set.ServicePorts.
func (k *Kernel) ServicePorts() ServicePorts { return ServicePorts{k} }

// Backends stands for maps.Set.Backends.
func (k *Kernel) Backends() Backends { return Backends{k} }

// Slots stands for maps.Set.Slots.
func (k *Kernel) Slots() Slots { return Slots{k} }

func nothing() {}

// Put behaves as maps.Frontends.Put.
func (a Frontends) Put(f maps.Frontend, v maps.Service) error {
	return a.k.write(nothing, func() error { return a.k.Fake.Frontends().Put(f, v) },
		func() { a.k.content.frontends[f] = v })
}

// Delete behaves as maps.Frontends.Delete.
func (a Frontends) Delete(f maps.Frontend) error {
	return a.k.write(nothing, func() error { return a.k.Fake.Frontends().Delete(f) },
		func() { delete(a.k.content.frontends, f) })
}

// All behaves as maps.Frontends.All.
func (a Frontends) All() (map[maps.Frontend]maps.Service, error) { return a.k.Fake.Frontends().All() }

// Put behaves as maps.ServicePorts.Put.
func (a ServicePorts) Put(id maps.ServicePortID, v maps.ServicePort) error {
	guard := func() {
		if old, ok := a.k.content.ports[id]; ok && old != v {
			a.k.violate("service port %d is renamed from %s to %s", id, old, v)
		}
	}
	return a.k.write(guard, func() error { return a.k.Fake.ServicePorts().Put(id, v) },
		func() { a.k.content.ports[id] = v })
}

// Delete behaves as maps.ServicePorts.Delete.
func (a ServicePorts) Delete(id maps.ServicePortID) error {
	guard := func() {
		for f, v := range a.k.content.frontends {
			if v.ServicePort == id {
				a.k.violate("service port %d is deleted while frontend %s has it", id, f)
			}
		}
	}
	return a.k.write(guard, func() error { return a.k.Fake.ServicePorts().Delete(id) },
		func() { delete(a.k.content.ports, id) })
}

// All behaves as maps.ServicePorts.All.
func (a ServicePorts) All() (map[maps.ServicePortID]maps.ServicePort, error) {
	return a.k.Fake.ServicePorts().All()
}

// Put behaves as maps.Backends.Put.
func (a Backends) Put(id maps.BackendID, b maps.Backend) error {
	note := func() {
		a.k.content.backends[id] = b
		if b.State == maps.Gone {
			a.k.backendGone[id] = a.k.Now
		}
	}
	return a.k.write(func() { a.k.guardBackend(id, b) }, func() error { return a.k.Fake.Backends().Put(id, b) }, note)
}

// All behaves as maps.Backends.All.
func (a Backends) All() (map[maps.BackendID]maps.Backend, error) { return a.k.Fake.Backends().All() }

// Capacity behaves as maps.Backends.Capacity.
func (a Backends) Capacity() uint32 { return a.k.Fake.Backends().Capacity() }

// Write behaves as maps.Slots.Write.
func (a Slots) Write(t maps.Table, slots []maps.BackendID) error {
	note := func() {
		for i, id := range slots {
			a.k.slots[t.Offset+uint32(i)] = id
		}
	}
	return a.k.write(func() { a.k.guardSlots(t) }, func() error { return a.k.Fake.Slots().Write(t, slots) }, note)
}

// Read behaves as maps.Slots.Read.
func (a Slots) Read(t maps.Table) ([]maps.BackendID, error) { return a.k.Fake.Slots().Read(t) }

// Capacity behaves as maps.Slots.Capacity.
func (a Slots) Capacity() uint32 { return a.k.Fake.Slots().Capacity() }
