package loader

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/maps"
)

// SyncAddresses makes the addresses of the caller's network namespace those of the
// node in m. It is idempotent and writes only what is not so yet.
func SyncAddresses(m maps.Addresses) error {
	have, err := m.All()
	if err != nil {
		return err
	}
	want, err := ownAddresses()
	if err != nil {
		return fmt.Errorf("list addresses of the node: %w", err)
	}
	var errs []error
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

// ownAddresses returns the addresses by which others may know the node. Those of
// loopback and of one link are the same on every machine.
func ownAddresses() (map[netip.Addr]bool, error) {
	all, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	own := make(map[netip.Addr]bool)
	for _, held := range all {
		a, ok := netip.AddrFromSlice(held.IP)
		if a = a.Unmap(); ok && a.IsGlobalUnicast() {
			own[a] = true
		}
	}
	return own, nil
}
