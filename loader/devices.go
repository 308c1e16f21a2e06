package loader

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Uplinks returns the names of the devices towards other machines: explicit, if
// there are any, else those that have a default route in the main table or hold
// one of nodeAddrs. Of a bond or a bridge it is the device that holds route and
// address, never its members. Explicit names need not exist. The result is sorted.
func Uplinks(explicit []string, nodeAddrs []netip.Addr) ([]string, error) {
	if len(explicit) > 0 {
		names := slices.Clone(explicit)
		slices.Sort(names)
		return slices.Compact(names), nil
	}
	names, err := detectUplinks(nodeAddrs)
	if err != nil {
		return nil, fmt.Errorf("detect uplinks: %w", err)
	}
	return names, nil
}

func detectUplinks(nodeAddrs []netip.Addr) ([]string, error) {
	candidates, err := defaultRouteDevices()
	if err != nil {
		return nil, err
	}
	holders, err := addressHolders(nodeAddrs)
	if err != nil {
		return nil, err
	}
	devices, err := dump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	vrfs := vrfDevices(devices)
	var names []string
	for _, dev := range devices {
		attrs := dev.Attrs()
		wanted := candidates[attrs.Index] || holders[attrs.Index]
		enslaved := attrs.MasterIndex != 0 && !vrfs[attrs.MasterIndex]
		if wanted && !enslaved && attrs.Flags&net.FlagLoopback == 0 {
			names = append(names, attrs.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// vrfDevices returns the devices whose members keep their own addresses.
func vrfDevices(devices []netlink.Link) map[int]bool {
	vrfs := make(map[int]bool)
	for _, dev := range devices {
		if dev.Type() == "vrf" {
			vrfs[dev.Attrs().Index] = true
		}
	}
	return vrfs
}

// defaultRouteDevices returns the ifindexes that default routes lead to.
func defaultRouteDevices() (map[int]bool, error) {
	found := make(map[int]bool)
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dump(func() ([]netlink.Route, error) {
			return netlink.RouteList(nil, family)
		})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if !isDefault(r) {
				continue
			}
			found[r.LinkIndex] = true
			for _, hop := range r.MultiPath {
				found[hop.LinkIndex] = true
			}
		}
	}
	return found, nil
}

// isDefault reports whether r leads packets for anywhere to a device.
func isDefault(r netlink.Route) bool {
	if r.Type != unix.RTN_UNICAST {
		return false
	}
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

// addressHolders returns the ifindexes that hold one of addrs.
func addressHolders(addrs []netip.Addr) (map[int]bool, error) {
	found := make(map[int]bool)
	if len(addrs) == 0 {
		return found, nil
	}
	all, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, held := range all {
		addr, ok := netip.AddrFromSlice(held.IP)
		if ok && slices.Contains(addrs, addr.Unmap()) {
			found[held.LinkIndex] = true
		}
	}
	return found, nil
}
