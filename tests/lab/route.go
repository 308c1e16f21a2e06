package lab

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// route is one route by a device. An invalid via means the destination is on
// the link, an invalid src that the kernel chooses the source.
type route struct {
	dst netip.Prefix
	via netip.Addr
	dev string
	src netip.Addr
}

// defaultRoutes leads everything of both families to the given routers.
func defaultRoutes(dev string, via4, via6 netip.Addr) []route {
	return []route{
		{dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), via: via4, dev: dev},
		{dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), via: via6, dev: dev},
	}
}

// addRoute inserts r, or replaces the route to the same destination, in the
// namespace of the calling thread.
func addRoute(r route) error {
	link, err := netlink.LinkByName(r.dev)
	if err != nil {
		return fmt.Errorf("find %s: %w", r.dev, err)
	}
	nr := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r.dst)}
	if r.via.IsValid() {
		nr.Gw = r.via.AsSlice()
	} else {
		nr.Scope = netlink.SCOPE_LINK
	}
	if r.src.IsValid() {
		nr.Src = r.src.AsSlice()
	}
	if err := netlink.RouteReplace(nr); err != nil {
		return fmt.Errorf("add route to %s by %s: %w", r.dst, r.dev, err)
	}
	return nil
}
