package pathmtu

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/tests/lab"
)

// What routes take, in bytes. All links take 1500, and that is all the ends know.
const (
	toClient = 1420 // from the router to the client
	toPod    = 1380 // from the entry node to its pod
	toNode   = 1340 // from the router to the second node's pods
)

// narrow makes the routes take less. The way to the other node's pods leads by
// the router now, so that somebody between the nodes notices.
func (w *world) narrow() {
	w.Helper()
	router, entry, second := w.lab.Router, w.entry, w.lab.Nodes[1]
	client4, client6 := lab.ClientAddrs()
	err := errors.Join(
		router.Do(func() error {
			return errors.Join(
				shrink(host(client4), toClient), shrink(host(client6), toClient),
				detour(second.PodCIDR4, second.Addr4, toNode), detour(second.PodCIDR6, second.Addr6, toNode))
		}),
		entry.Do(func() error {
			return errors.Join(
				shrink(host(w.local.pod.Addr4), toPod), shrink(host(w.local.pod.Addr6), toPod),
				detour(second.PodCIDR4, gateway(netlink.FAMILY_V4), 0), detour(second.PodCIDR6, gateway(netlink.FAMILY_V6), 0))
		}))
	if err != nil {
		w.Fatal(err)
	}
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// The functions below act on the namespace of the calling thread. MTUs are
// locked: that is what routers reckon with.

// shrink makes the way to dst, as it is, take mtu bytes only.
func shrink(dst netip.Prefix, mtu int) error {
	routes, err := netlink.RouteGet(dst.Addr().AsSlice())
	if err != nil {
		return fmt.Errorf("find the route to %s: %w", dst, err)
	}
	r := &netlink.Route{LinkIndex: routes[0].LinkIndex, Scope: netlink.SCOPE_LINK, Src: routes[0].Src}
	return replace(r, dst, mtu)
}

// detour makes the way to dst lead by via.
func detour(dst netip.Prefix, via netip.Addr, mtu int) error {
	routes, err := netlink.RouteGet(via.AsSlice())
	if err != nil {
		return fmt.Errorf("find the route to %s: %w", via, err)
	}
	return replace(&netlink.Route{LinkIndex: routes[0].LinkIndex, Gw: via.AsSlice()}, dst, mtu)
}

func replace(r *netlink.Route, dst netip.Prefix, mtu int) error {
	_, r.Dst, _ = net.ParseCIDR(dst.String())
	r.MTU, r.MTULock = mtu, mtu > 0
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("replace the route to %s: %w", dst, err)
	}
	return nil
}

// gateway is the router of the default route; invalid if there is none.
func gateway(family int) netip.Addr {
	routes, err := netlink.RouteList(nil, family)
	if err != nil {
		return netip.Addr{}
	}
	for _, r := range routes {
		if ones, _ := r.Dst.Mask.Size(); ones == 0 && r.Gw != nil {
			addr, _ := netip.AddrFromSlice(r.Gw)
			return addr.Unmap()
		}
	}
	return netip.Addr{}
}
