package loader

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/ebb-lb/ebb/maps"
)

// RuntimeMap is the map of the few values that change while programs run. Package maps
// provides it.
type RuntimeMap interface {
	Get() (maps.Runtime, error)
	Put(maps.Runtime) error
}

// SyncAddresses makes the addresses of the caller's network namespace those of the
// node in m, and in the filter of r. It is idempotent and writes only what is not so yet.
func SyncAddresses(m maps.Addresses, r RuntimeMap) error {
	have, err := m.All()
	if err != nil {
		return err
	}
	want, err := OwnAddresses()
	if err != nil {
		return fmt.Errorf("list addresses of the node: %w", err)
	}
	errs := []error{syncNodeBits(r, want)}
	for a := range want {
		if have[a] != maps.AddressNode {
			errs = append(errs, m.Put(a, maps.AddressNode))
		}
	}
	for a := range have {
		if !want[a] {
			errs = append(errs, m.Delete(a))
		}
	}
	return errors.Join(errs...)
}

// syncNodeBits makes the filter of the node's addresses that of own.
func syncNodeBits(r RuntimeMap, own map[netip.Addr]bool) error {
	v, err := r.Get()
	if err != nil {
		return err
	}
	var bits uint64
	for a := range own {
		bits |= maps.AddressBit(a)
	}
	if v.NodeBits == bits {
		return nil
	}
	v.NodeBits = bits
	return r.Put(v)
}

// OwnAddresses returns the addresses of the caller's network namespace by which others
// may know the node. Those of loopback and of one link are the same on every machine.
func OwnAddresses() (map[netip.Addr]bool, error) {
	held, err := heldAddresses()
	if err != nil {
		return nil, err
	}
	own := make(map[netip.Addr]bool)
	for _, addrs := range held {
		for _, a := range addrs {
			if a.IsGlobalUnicast() {
				own[a] = true
			}
		}
	}
	return own, nil
}
