package mapstest

import (
	"net/netip"

	"github.com/ebb-lb/ebb/maps"
)

// Addresses stands for maps.Addresses.
type Addresses struct {
	f   *Fake
	own maps.AddressFlags
}

// Put behaves as maps.Addresses.Put.
func (a Addresses) Put(addr netip.Addr, flags maps.AddressFlags) error {
	return wrap(a.f.write(func() (bool, error) {
		if err := flags.Check(addr, a.own); err != nil {
			return false, err
		}
		return a.update(addr, flags)
	}), "put address %s", addr)
}

// Delete behaves as maps.Addresses.Delete.
func (a Addresses) Delete(addr netip.Addr) error {
	return wrap(a.f.write(func() (bool, error) { return a.update(addr, 0) }), "delete address %s", addr)
}

func (a Addresses) update(addr netip.Addr, flags maps.AddressFlags) (changed bool, err error) {
	had := a.f.addresses.m[addr]
	v := had&^a.own | flags
	switch {
	case v == 0:
		return a.f.addresses.del(addr)
	case v == had && flags == 0:
		return false, nil
	}
	return a.f.addresses.put(addr, v)
}

// All behaves as maps.Addresses.All.
func (a Addresses) All() (map[netip.Addr]maps.AddressFlags, error) {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	out := make(map[netip.Addr]maps.AddressFlags)
	for addr, flags := range a.f.addresses.m {
		if flags&a.own != 0 {
			out[addr] = flags & a.own
		}
	}
	return out, nil
}
