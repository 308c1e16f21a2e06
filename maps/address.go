package maps

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"strings"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
)

// AddressFlags say whose an address is (enum address_flag in bpf/abi/types.h).
type AddressFlags uint32

// Bits of an address.
const (
	AddressClusterIP AddressFlags = 1 << 0 // a ClusterIP: other ports of it are rejected
	AddressExternal  AddressFlags = 1 << 1 // of a load balancer, or an external IP
	AddressNode      AddressFlags = 1 << 2 // of this node
)

// ServiceAddress and NodeAddress are the flags that each of the two writers of
// the map addresses has to itself.
const (
	ServiceAddress = AddressClusterIP | AddressExternal
	NodeAddress    = AddressNode
)

// addressFlagNames are the names of the bits, lowest first.
var addressFlagNames = [...]string{"cluster-ip", "external", "node"}

// String lists the bits of f, lowest first, as "cluster-ip,node"; "-" if there
// is none.
func (f AddressFlags) String() string { return bitNames(uint32(f), addressFlagNames[:]) }

// bitNames lists the names of the bits of flags, lowest first.
func bitNames(flags uint32, known []string) string {
	if flags == 0 {
		return "-"
	}
	var names []string
	for rest := flags; rest != 0; rest &= rest - 1 {
		bit := bits.TrailingZeros32(rest)
		if bit < len(known) {
			names = append(names, known[bit])
		} else {
			names = append(names, fmt.Sprintf("bit(%d)", bit))
		}
	}
	return strings.Join(names, ",")
}

// Check reports why a cannot have the flags f by an accessor of those in own.
func (f AddressFlags) Check(a netip.Addr, own AddressFlags) error {
	if f&^own != 0 {
		return fmt.Errorf("flags %s are not of %s", f, own)
	}
	return checkAddr(a)
}

// Addresses is access to some flags of the map addresses. An address may be a
// Service's and the node's at once, and different parts of the agent know that:
// each sees and changes its own flags only, and the others stay.
type Addresses struct {
	e    entries
	lock *sync.Mutex // of all accessors of the Set: an update is read and write
	own  AddressFlags
}

// Put gives the address a the flags f, none of them if f is 0. A full map is
// ErrFull.
func (a Addresses) Put(addr netip.Addr, f AddressFlags) error {
	if err := f.Check(addr, a.own); err != nil {
		return fmt.Errorf("put address %s: %w", addr, err)
	}
	if err := a.update(addr, f); err != nil {
		return fmt.Errorf("put address %s: %w", addr, err)
	}
	return nil
}

// Delete takes all flags from an address. An absent entry is not an error:
// reconcilers retry.
func (a Addresses) Delete(addr netip.Addr) error {
	if checkAddr(addr) != nil {
		return nil // cannot be in the map, and must not be taken for what is
	}
	if err := a.update(addr, 0); err != nil {
		return fmt.Errorf("delete address %s: %w", addr, err)
	}
	return nil
}

// update replaces the own flags of an entry. One without flags goes.
func (a Addresses) update(addr netip.Addr, f AddressFlags) error {
	a.lock.Lock()
	defer a.lock.Unlock()
	k := toAddr(addr)
	var had uint32
	err := a.e.m.Lookup(&k, &had)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	v := had&^uint32(a.own) | uint32(f)
	switch {
	case v == 0:
		return a.e.del(&k)
	case v == had && f == 0:
		return nil
	}
	return a.e.put(&k, &v)
}

// All reads the addresses that have one of the flags, without other flags. The
// map returned is the caller's.
func (a Addresses) All() (map[netip.Addr]AddressFlags, error) {
	out := make(map[netip.Addr]AddressFlags)
	err := each(a.e.m, func(k *bpf.LayoutIpAddr, v *uint32) bool {
		if f := AddressFlags(*v) & a.own; f != 0 {
			out[fromAddr(*k)] = f
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	return out, nil
}
