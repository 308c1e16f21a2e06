package loader

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/maps"
)

func TestAddressesOfTheNodeFollowItsDevices(t *testing.T) {
	newNetns(t)
	set := newSet(t)
	other := set.Addresses(maps.ServiceAddress)
	must(t, "put", other.Put(netip.MustParseAddr("192.0.2.1"), maps.AddressExternal))
	dev := addVeth(t, "up0")
	for _, a := range []string{"192.0.2.1/24", "2001:db8::1/64", "169.254.7.7/16"} {
		addr, err := netlink.ParseAddr(a)
		must(t, "parse", err)
		must(t, "add "+a, netlink.AddrAdd(dev, addr))
	}
	wantAddresses(t, set, "192.0.2.1", "2001:db8::1")

	gone, err := netlink.ParseAddr("192.0.2.1/24")
	must(t, "parse", err)
	must(t, "delete address", netlink.AddrDel(dev, gone))
	wantAddresses(t, set, "2001:db8::1")
	before := set.Writes()
	wantAddresses(t, set, "2001:db8::1")
	if got := set.Writes() - before; got != 0 {
		t.Errorf("%d writes without a change", got)
	}
	kept, err := other.All()
	must(t, "read", err)
	if len(kept) != 1 {
		t.Errorf("addresses of services are %v", kept)
	}
}

func wantAddresses(t *testing.T, set *maps.Set, want ...string) {
	t.Helper()
	m := set.Addresses(maps.NodeAddress)
	must(t, "sync", SyncAddresses(m, set.Runtime()))
	var bits uint64
	for _, a := range want {
		bits |= maps.AddressBit(netip.MustParseAddr(a))
	}
	if rt, err := set.Runtime().Get(); err != nil || rt.NodeBits != bits {
		t.Errorf("runtime values are %+v, %v; want the bits %b of %v", rt, err, bits, want)
	}
	all, err := m.All()
	must(t, "read", err)
	var got []string
	for a := range all {
		got = append(got, a.String())
	}
	if diff := cmp.Diff(want, got, cmpopts.SortSlices(func(a, b string) bool { return a < b })); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}
