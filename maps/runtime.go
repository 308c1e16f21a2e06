package maps

import (
	"fmt"

	"github.com/ebb-lb/ebb/bpf"
)

// RuntimeValues is access to the map runtime, which has one entry.
type RuntimeValues struct{ e entries }

// Get reads the values; the zero Runtime if none was put.
func (a RuntimeValues) Get() (Runtime, error) {
	var v bpf.LayoutRuntimeValues
	if err := a.e.m.Lookup(uint32(0), &v); err != nil {
		return Runtime{}, fmt.Errorf("read runtime values: %w", err)
	}
	return fromRuntime(&v), nil
}

// Put replaces the values.
func (a RuntimeValues) Put(r Runtime) error {
	if err := r.Validate(); err != nil {
		return fmt.Errorf("put runtime values: %w", err)
	}
	k, v := uint32(0), toRuntime(r)
	if err := a.e.put(&k, &v); err != nil {
		return fmt.Errorf("put runtime values: %w", err)
	}
	return nil
}

// Devices is access to the map devices.
type Devices struct{ e entries }

// Put inserts or replaces the entry for ifindex. A full map is ErrFull.
func (a Devices) Put(ifindex uint32, d Device) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("put device %d: %w", ifindex, err)
	}
	v := toDevice(d)
	if err := a.e.put(&ifindex, &v); err != nil {
		return fmt.Errorf("put device %d: %w", ifindex, err)
	}
	return nil
}

// Delete removes the entry for ifindex. An absent entry is not an error.
func (a Devices) Delete(ifindex uint32) error {
	if err := a.e.del(&ifindex); err != nil {
		return fmt.Errorf("delete device %d: %w", ifindex, err)
	}
	return nil
}

// All reads every entry, by ifindex. The map returned is the caller's.
func (a Devices) All() (map[uint32]Device, error) {
	out := make(map[uint32]Device)
	err := each(a.e.m, func(k *uint32, v *bpf.LayoutDevice) bool {
		out[*k] = fromDevice(v)
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read devices: %w", err)
	}
	return out, nil
}

// Stations is access to the map stations. A value is the ifindex of the device that has
// the address.
type Stations struct{ e entries }

// Put inserts or replaces the entry for s. A full map is ErrFull.
func (a Stations) Put(s Station, owner uint32) error {
	if err := s.Validate(); err != nil {
		return fmt.Errorf("put station %s: %w", s, err)
	}
	k := toStation(s)
	if err := a.e.put(&k, &owner); err != nil {
		return fmt.Errorf("put station %s: %w", s, err)
	}
	return nil
}

// Delete removes the entry for s. An absent entry is not an error.
func (a Stations) Delete(s Station) error {
	k := toStation(s)
	if err := a.e.del(&k); err != nil {
		return fmt.Errorf("delete station %s: %w", s, err)
	}
	return nil
}

// All reads every entry. The map returned is the caller's.
func (a Stations) All() (map[Station]uint32, error) {
	out := make(map[Station]uint32)
	err := each(a.e.m, func(k *bpf.LayoutStationKey, v *uint32) bool {
		out[fromStation(k)] = *v
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read stations: %w", err)
	}
	return out, nil
}
