package main

import (
	"errors"
	"net/netip"
	"time"

	"github.com/ebb-lb/ebb/agent/apply"
	"github.com/ebb-lb/ebb/maps"
)

// recorder remembers every write, to be done again alone.
type recorder struct {
	writes []func(*maps.Set) error
	first  int // how many belong to the first sync
}

// record returns set as a target whose writes are remembered.
func (r *recorder) record(set *maps.Set) apply.Targets {
	return apply.Targets{
		Frontends: recFrontends{set.Frontends(), r}, ServicePorts: recServicePorts{set.ServicePorts(), r},
		Backends: recBackends{set.Backends(), r}, Slots: recSlots{set.Slots(), r}, SourceRanges: set.SourceRanges(),
		Addresses: recAddresses{set.Addresses(maps.ServiceAddress), r},
	}
}

// split notes that what comes now is no part of the first sync.
func (r *recorder) split() { r.first = len(r.writes) }

// replay does all writes again, to maps that are as they were.
func (r *recorder) replay(s size, to *row) (err error) {
	set, err := maps.Create(s.sizes())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, set.Close()) }()
	if to.FirstFloor, err = timed(r.writes[:r.first], set); err != nil {
		return err
	}
	rest := r.writes[r.first:]
	if to.ChangeFloor, err = timed(rest, set); err != nil {
		return err
	}
	to.ChangeFloor /= time.Duration(to.Changes)
	to.FirstWrites, to.ChangeWrites = r.first, len(rest)
	return nil
}

func timed(writes []func(*maps.Set) error, set *maps.Set) (time.Duration, error) {
	begin := time.Now()
	for _, write := range writes {
		if err := write(set); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}

func (r *recorder) do(write func(*maps.Set) error, err error) error {
	r.writes = append(r.writes, write)
	return err
}

type recFrontends struct {
	maps.Frontends
	r *recorder
}

// Put is maps.Frontends.Put.
func (a recFrontends) Put(f maps.Frontend, v maps.Service) error {
	return a.r.do(func(s *maps.Set) error { return s.Frontends().Put(f, v) }, a.Frontends.Put(f, v))
}

// Delete is maps.Frontends.Delete.
func (a recFrontends) Delete(f maps.Frontend) error {
	return a.r.do(func(s *maps.Set) error { return s.Frontends().Delete(f) }, a.Frontends.Delete(f))
}

type recServicePorts struct {
	maps.ServicePorts
	r *recorder
}

// Put is maps.ServicePorts.Put.
func (a recServicePorts) Put(id maps.ServicePortID, v maps.ServicePort) error {
	return a.r.do(func(s *maps.Set) error { return s.ServicePorts().Put(id, v) }, a.ServicePorts.Put(id, v))
}

// Delete is maps.ServicePorts.Delete.
func (a recServicePorts) Delete(id maps.ServicePortID) error {
	return a.r.do(func(s *maps.Set) error { return s.ServicePorts().Delete(id) }, a.ServicePorts.Delete(id))
}

type recBackends struct {
	maps.Backends
	r *recorder
}

// Put is maps.Backends.Put.
func (a recBackends) Put(id maps.BackendID, b maps.Backend) error {
	return a.r.do(func(s *maps.Set) error { return s.Backends().Put(id, b) }, a.Backends.Put(id, b))
}

type recSlots struct {
	maps.Slots
	r *recorder
}

// Write is maps.Slots.Write.
func (a recSlots) Write(t maps.Table, slots []maps.BackendID) error {
	return a.r.do(func(s *maps.Set) error { return s.Slots().Write(t, slots) }, a.Slots.Write(t, slots))
}

type recAddresses struct {
	maps.Addresses
	r *recorder
}

// Put is maps.Addresses.Put.
func (a recAddresses) Put(addr netip.Addr, f maps.AddressFlags) error {
	return a.r.do(func(s *maps.Set) error { return s.Addresses(maps.ServiceAddress).Put(addr, f) }, a.Addresses.Put(addr, f))
}

// Delete is maps.Addresses.Delete.
func (a recAddresses) Delete(addr netip.Addr) error {
	return a.r.do(func(s *maps.Set) error { return s.Addresses(maps.ServiceAddress).Delete(addr) }, a.Addresses.Delete(addr))
}
