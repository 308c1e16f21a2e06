package mapstest

import (
	"errors"
	"net/netip"

	"github.com/ebb-lb/ebb/maps"
)

// Frontends stands for maps.Frontends.
type Frontends struct{ f *Fake }

// Put behaves as maps.Frontends.Put.
func (a Frontends) Put(k maps.Frontend, s maps.Service) error {
	return wrap(a.f.write(func() (bool, error) {
		if err := errors.Join(k.Validate(), s.Validate()); err != nil {
			return false, err
		}
		return a.f.frontends.put(k, s)
	}), "put frontend %s", k)
}

// Delete behaves as maps.Frontends.Delete.
func (a Frontends) Delete(k maps.Frontend) error {
	return wrap(a.f.write(func() (bool, error) { return a.f.frontends.del(k) }), "delete frontend %s", k)
}

// All behaves as maps.Frontends.All.
func (a Frontends) All() (map[maps.Frontend]maps.Service, error) {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	return a.f.frontends.all(), nil
}

// ServicePorts stands for maps.ServicePorts.
type ServicePorts struct{ f *Fake }

// Put behaves as maps.ServicePorts.Put.
func (a ServicePorts) Put(id maps.ServicePortID, s maps.ServicePort) error {
	return wrap(a.f.write(func() (bool, error) {
		if err := s.Validate(); err != nil {
			return false, err
		}
		return a.f.servicePorts.put(id, s)
	}), "put service port %d (%s)", id, s)
}

// Delete behaves as maps.ServicePorts.Delete.
func (a ServicePorts) Delete(id maps.ServicePortID) error {
	return wrap(a.f.write(func() (bool, error) { return a.f.servicePorts.del(id) }),
		"delete service port %d", id)
}

// All behaves as maps.ServicePorts.All.
func (a ServicePorts) All() (map[maps.ServicePortID]maps.ServicePort, error) {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	return a.f.servicePorts.all(), nil
}

// Backends stands for maps.Backends.
type Backends struct{ f *Fake }

// Capacity behaves as maps.Backends.Capacity.
func (a Backends) Capacity() uint32 { return uint32(len(a.f.backends)) }

// Put behaves as maps.Backends.Put.
func (a Backends) Put(id maps.BackendID, b maps.Backend) error {
	return wrap(a.f.write(func() (bool, error) {
		if err := id.Within(a.Capacity()); err != nil {
			return false, err
		}
		if err := b.Validate(); err != nil {
			return false, err
		}
		a.f.backends[id] = b
		return true, nil
	}), "put backend %d", id)
}

// All behaves as maps.Backends.All.
func (a Backends) All() (map[maps.BackendID]maps.Backend, error) {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	return a.f.usedBackends(), nil
}

// Slots stands for maps.Slots.
type Slots struct{ f *Fake }

// Capacity behaves as maps.Slots.Capacity.
func (a Slots) Capacity() uint32 { return uint32(len(a.f.slots)) }

// Write behaves as maps.Slots.Write.
func (a Slots) Write(t maps.Table, slots []maps.BackendID) error {
	return wrap(a.f.write(func() (bool, error) {
		if err := t.Check(len(slots), a.Capacity()); err != nil {
			return false, err
		}
		copy(a.f.region(t), slots)
		return t.Length > 0, nil
	}), "write table %s", t)
}

// Read behaves as maps.Slots.Read.
func (a Slots) Read(t maps.Table) ([]maps.BackendID, error) {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	return a.f.readTable(t)
}

// SourceRanges stands for maps.SourceRanges.
type SourceRanges struct{ f *Fake }

// Put behaves as maps.SourceRanges.Put.
func (a SourceRanges) Put(r maps.SourceRange) error {
	return wrap(a.f.write(func() (bool, error) {
		if err := r.Validate(); err != nil {
			return false, err
		}
		return a.f.sourceRanges.put(r, struct{}{})
	}), "put source range %s", r.Prefix)
}

// Delete behaves as maps.SourceRanges.Delete.
func (a SourceRanges) Delete(r maps.SourceRange) error {
	return wrap(a.f.write(func() (bool, error) { return a.f.sourceRanges.del(r) }),
		"delete source range %s", r.Prefix)
}

// All behaves as maps.SourceRanges.All.
func (a SourceRanges) All() (map[maps.SourceRange]struct{}, error) {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	return a.f.sourceRanges.all(), nil
}

// CIDRs stands for maps.CIDRs.
type CIDRs struct {
	f    *Fake
	h    *hash[netip.Prefix, struct{}]
	what string
}

// Put behaves as maps.CIDRs.Put.
func (a CIDRs) Put(p netip.Prefix) error {
	return wrap(a.f.write(func() (bool, error) {
		if err := (maps.SourceRange{Prefix: p}).Validate(); err != nil {
			return false, err
		}
		return a.h.put(p, struct{}{})
	}), "put %s range %s", a.what, p)
}

// Delete behaves as maps.CIDRs.Delete.
func (a CIDRs) Delete(p netip.Prefix) error {
	return wrap(a.f.write(func() (bool, error) { return a.h.del(p) }), "delete %s range %s", a.what, p)
}

// All behaves as maps.CIDRs.All.
func (a CIDRs) All() (map[netip.Prefix]struct{}, error) {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	return a.h.all(), nil
}

// RuntimeValues stands for maps.RuntimeValues.
type RuntimeValues struct{ f *Fake }

// Get behaves as maps.RuntimeValues.Get.
func (a RuntimeValues) Get() (maps.Runtime, error) {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	return a.f.runtime, nil
}

// Put behaves as maps.RuntimeValues.Put.
func (a RuntimeValues) Put(r maps.Runtime) error {
	return wrap(a.f.write(func() (bool, error) {
		if err := r.Validate(); err != nil {
			return false, err
		}
		a.f.runtime = r
		return true, nil
	}), "put runtime values")
}

// Devices stands for maps.Devices.
type Devices struct{ f *Fake }

// Put behaves as maps.Devices.Put.
func (a Devices) Put(ifindex uint32, d maps.Device) error {
	return wrap(a.f.write(func() (bool, error) {
		if err := d.Validate(); err != nil {
			return false, err
		}
		return a.f.devices.put(ifindex, d)
	}), "put device %d", ifindex)
}

// Delete behaves as maps.Devices.Delete.
func (a Devices) Delete(ifindex uint32) error {
	return wrap(a.f.write(func() (bool, error) { return a.f.devices.del(ifindex) }),
		"delete device %d", ifindex)
}

// All behaves as maps.Devices.All.
func (a Devices) All() (map[uint32]maps.Device, error) {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	return a.f.devices.all(), nil
}

// Stations stands for maps.Stations.
type Stations struct{ f *Fake }

// Put behaves as maps.Stations.Put.
func (a Stations) Put(s maps.Station, owner uint32) error {
	return wrap(a.f.write(func() (bool, error) {
		if err := s.Validate(); err != nil {
			return false, err
		}
		return a.f.stations.put(s, owner)
	}), "put station %s", s)
}

// Delete behaves as maps.Stations.Delete.
func (a Stations) Delete(s maps.Station) error {
	return wrap(a.f.write(func() (bool, error) { return a.f.stations.del(s) }), "delete station %s", s)
}

// All behaves as maps.Stations.All.
func (a Stations) All() (map[maps.Station]uint32, error) {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	return a.f.stations.all(), nil
}
