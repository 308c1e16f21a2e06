package loader

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// waysIn reads from the kernel what c decides by.
func waysIn(c UplinkChoice) ([]wayIn, error) {
	links, err := dump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("detect uplinks: list devices: %w", err)
	}
	addrs, err := heldAddresses()
	if err != nil {
		return nil, fmt.Errorf("detect uplinks: list addresses: %w", err)
	}
	led, err := routedDevices(c, addrs)
	if err != nil {
		return nil, fmt.Errorf("detect uplinks: list routes: %w", err)
	}
	vrfs, names := vrfDevices(links), deviceNames(links)
	out := make([]wayIn, 0, len(links))
	for _, link := range links {
		a := link.Attrs()
		out = append(out, wayIn{
			Name: a.Name, Kind: link.Type(),
			Up: a.Flags&net.FlagUp != 0, Loopback: a.Flags&net.FlagLoopback != 0,
			Member:  a.MasterIndex != 0 && !vrfs[a.MasterIndex],
			PodLink: c.PodLinks.names(a.Name),
			Addrs:   addrs[a.Index],
			Default: led.byDefault[a.Index], Gateway: led.byGateway[a.Index], Beyond: led.beyond[a.Index],
			Master: names[a.MasterIndex], Tunnel: isTunnel(link),
		})
	}
	return out, nil
}

// isTunnel reports whether a device is one to other machines by its kind.
func isTunnel(dev netlink.Link) bool {
	header, err := headed(dev)
	return err == nil && !header || slices.Contains([]string{"vxlan", "geneve", "gretap", "ip6gretap", "l2tp", "bareudp"}, dev.Type())
}

func deviceNames(devices []netlink.Link) map[int]string {
	names := make(map[int]string)
	for _, dev := range devices {
		names[dev.Attrs().Index] = dev.Attrs().Name
	}
	return names
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

// heldAddresses returns the addresses of devices by ifindex.
func heldAddresses() (map[int][]netip.Addr, error) {
	return addressesThat(func(netlink.Addr, netip.Addr) bool { return true })
}

// addressesThat returns the addresses of devices that qualify, by ifindex, in the kernel's
// order.
func addressesThat(qualify func(netlink.Addr, netip.Addr) bool) (map[int][]netip.Addr, error) {
	all, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	held := make(map[int][]netip.Addr)
	for _, a := range all {
		addr, ok := netip.AddrFromSlice(a.IP)
		if addr = addr.Unmap(); ok && qualify(a, addr) {
			held[a.LinkIndex] = append(held[a.LinkIndex], addr)
		}
	}
	return held, nil
}

// led are the ifindexes that routes of the main table lead to: default routes, those by
// gateways to others than pods, and those by gateways.
type led struct{ byDefault, byGateway, beyond map[int]bool }

func routedDevices(c UplinkChoice, held map[int][]netip.Addr) (led, error) {
	l := led{make(map[int]bool), make(map[int]bool), make(map[int]bool)}
	own := make(map[netip.Addr]bool)
	for _, addrs := range held {
		for _, a := range addrs {
			own[a] = true
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
		if err != nil {
			return l, err
		}
		for _, r := range routes {
			if r.Type != unix.RTN_UNICAST {
				continue
			}
			all := isDefault(r)
			for _, hop := range hops(r) {
				beyond := hop.gateway.IsValid() && !own[hop.gateway]
				switch {
				case all:
					l.byDefault[hop.ifindex] = true
				case beyond && !c.isPods(destination(r)):
					l.byGateway[hop.ifindex], l.beyond[hop.ifindex] = true, true
				case beyond:
					l.beyond[hop.ifindex] = true
				}
			}
		}
	}
	return l, nil
}

// hop is one way of a route.
type hop struct {
	ifindex int
	gateway netip.Addr // invalid: the destination is on the link
}

// hops returns the ways of r, all of them of a multipath route.
func hops(r netlink.Route) []hop {
	if len(r.MultiPath) == 0 {
		return []hop{{r.LinkIndex, gateway(r.Gw, r.Via)}}
	}
	var out []hop
	for _, h := range r.MultiPath {
		out = append(out, hop{h.LinkIndex, gateway(h.Gw, h.Via)})
	}
	return out
}

// gateway returns the address of a gateway, which may be of the other family.
func gateway(gw net.IP, via netlink.Destination) netip.Addr {
	if v, ok := via.(*netlink.Via); ok && v != nil {
		gw = v.Addr
	}
	addr, _ := netip.AddrFromSlice(gw)
	return addr.Unmap()
}

// destination returns the first address r is for.
func destination(r netlink.Route) netip.Addr {
	if r.Dst == nil {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(r.Dst.IP)
	return addr.Unmap()
}

// isDefault reports whether r leads packets for anywhere to a device.
func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}
