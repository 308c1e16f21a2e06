package rig

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
)

// The addresses of a World. Neighbours are permanent entries: nobody answers.
var (
	Node4    = netip.MustParseAddr("198.51.100.11")
	Node6    = netip.MustParseAddr("2001:db8:51::11")
	Other4   = netip.MustParseAddr("198.51.100.12") // the node remote backends are behind
	Other6   = netip.MustParseAddr("2001:db8:51::12")
	Gateway4 = netip.MustParseAddr("198.51.100.1")
	Gateway6 = netip.MustParseAddr("2001:db8:51::1")
	Second4  = netip.MustParseAddr("192.168.6.1") // of the second device
	Second6  = netip.MustParseAddr("fd00:168:6::1")
	Pod4     = netip.MustParseAddr("10.244.1.7") // a pod of this node that has a neighbour entry
	Pod6     = netip.MustParseAddr("fd00:244:1::7")

	NodeMAC    = net.HardwareAddr{2, 0, 0, 0, 0, 0x11}
	OtherMAC   = net.HardwareAddr{2, 0, 0, 0, 0, 0x12}
	GatewayMAC = net.HardwareAddr{2, 0, 0, 0, 0, 0x01}
)

// VLAN is the tag the rig's stand-in for a VLAN device has in the devices map.
const VLAN = 100

// localTimeout bounds the wait for the kernel's work queue.
const localTimeout = 10 * time.Second

// SmallMTU is the MTU of the routes to 10.244.3.0/24 and fd00:244:3::/64.
const SmallMTU = 1400

// World is a network namespace with an uplink, a second device, a pods' device, and
// routes, by the network in 10.244.0.0/16 and fd00:244::/32:
//
//	1        to the pods' device
//	2, 3     by the other node, 3 with a small MTU
//	4        by a neighbour nobody knows
//	5        prohibit
//	6        by the second device
//	7, 8, 9  unreachable, blackhole, throw
//
// and by the gateway to everywhere else. To the programs a VLAN device is what the devices
// map says it is, so the second device stands in for one (not every kernel has them).
type World struct {
	Uplink uint32 // ifindex
	Second uint32
	Pods   uint32 // pods of this node are behind it
	work   chan func()
}

func newWorld() (*World, error) {
	w := &World{work: make(chan func())}
	ready := make(chan error, 1)
	go w.run(ready)
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("network namespace of the rig: %w", err)
	}
	return w, nil
}

// close lets the namespace go with its thread.
func (w *World) close() { close(w.work) }

// run never unlocks its thread, so that the runtime discards it together with
// its namespace.
func (w *World) run(ready chan<- error) {
	runtime.LockOSThread()
	err := w.build()
	ready <- err
	if err != nil {
		return
	}
	for fn := range w.work {
		fn()
	}
}

// Do runs fn on a thread inside the namespace.
func (w *World) Do(fn func() error) error {
	done := make(chan error, 1)
	w.work <- func() { done <- fn() }
	return <-done
}

func (w *World) build() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	up, second, pods, err := addDevices()
	if err != nil {
		return err
	}
	w.Uplink, w.Second, w.Pods = uint32(up.Attrs().Index), uint32(second.Attrs().Index), uint32(pods.Attrs().Index)
	return errors.Join(
		setSysctls(),
		addAddresses(up, "198.51.100.11/24", "2001:db8:51::11/64"),
		addAddresses(second, Second4.String()+"/24", Second6.String()+"/64"),
		addNeighbours(up, GatewayMAC, Gateway4, Gateway6),
		addNeighbours(up, OtherMAC, Other4, Other6),
		addNeighbours(second, OtherMAC, Second4.Next(), Second6.Next()),
		addNeighbours(pods, OtherMAC, Pod4, Pod6),
		addRoutes(up, second, pods),
		awaitLocal(Node6, Second6),
		lab.AttachPass(up.Attrs().Name),
	)
}

func addDevices() (up, second, pods netlink.Link, err error) {
	for _, pair := range [][2]string{{"up0", "peer0"}, {"up1", "peer1"}, {"pods", "peer2"}} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = pair[0], NodeMAC
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: pair[1]}); err != nil {
			return nil, nil, nil, fmt.Errorf("add %s: %w", pair[0], err)
		}
		if _, err := setUp(pair[1]); err != nil {
			return nil, nil, nil, err
		}
	}
	if up, err = setUp("up0"); err != nil {
		return nil, nil, nil, err
	}
	if second, err = setUp("up1"); err != nil {
		return nil, nil, nil, err
	}
	pods, err = setUp("pods")
	return up, second, pods, err
}

func setUp(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	return l, netlink.LinkSetUp(l)
}

func addAddresses(l netlink.Link, prefixes ...string) error {
	for _, p := range prefixes {
		a, err := netlink.ParseAddr(p)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, a); err != nil {
			return fmt.Errorf("add %s: %w", p, err)
		}
	}
	return nil
}

// awaitLocal returns when the kernel takes addrs for its own: the local route of
// an IPv6 address is added by a work queue.
func awaitLocal(addrs ...netip.Addr) error {
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	deadline := time.After(localTimeout)
	for _, a := range addrs {
		for {
			routes, err := netlink.RouteGet(a.AsSlice())
			if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
				break
			}
			select {
			case <-poll.C:
			case <-deadline:
				return fmt.Errorf("%s is not local after %s: %v, %v", a, localTimeout, routes, err)
			}
		}
	}
	return nil
}

func addNeighbours(l netlink.Link, mac net.HardwareAddr, addrs ...netip.Addr) error {
	for _, a := range addrs {
		n := &netlink.Neigh{LinkIndex: l.Attrs().Index, State: unix.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac}
		if err := netlink.NeighAdd(n); err != nil {
			return fmt.Errorf("add neighbour %s: %w", a, err)
		}
	}
	return nil
}

func addRoutes(up, second, pods netlink.Link) error {
	first, other, here := up.Attrs().Index, second.Attrs().Index, pods.Attrs().Index
	routes := []struct {
		dst, via string
		mtu      int
		dev      int
	}{
		{"0.0.0.0/0", "198.51.100.1", 0, first}, {"::/0", "2001:db8:51::1", 0, first},
		{"10.244.1.0/24", "", 0, here}, {"fd00:244:1::/64", "", 0, here},
		{"10.244.2.0/24", "198.51.100.12", 0, first}, {"fd00:244:2::/64", "2001:db8:51::12", 0, first},
		{"10.244.3.0/24", "198.51.100.12", SmallMTU, first}, {"fd00:244:3::/64", "2001:db8:51::12", SmallMTU, first},
		{"10.244.4.0/24", "198.51.100.77", 0, first}, {"fd00:244:4::/64", "2001:db8:51::77", 0, first},
		{"10.244.6.0/24", Second4.Next().String(), 0, other}, {"fd00:244:6::/64", Second6.Next().String(), 0, other},
	}
	for _, r := range routes {
		_, dst, err := net.ParseCIDR(r.dst)
		if err != nil {
			return err
		}
		// For packets that are forwarded, IPv4 reckons with a locked MTU only.
		route := &netlink.Route{LinkIndex: r.dev, Dst: dst, Gw: net.ParseIP(r.via), MTU: r.mtu, MTULock: r.mtu > 0}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("add route %s: %w", r.dst, err)
		}
	}
	return errors.Join(nowhere(5, unix.RTN_PROHIBIT), nowhere(7, unix.RTN_UNREACHABLE),
		nowhere(8, unix.RTN_BLACKHOLE), nowhere(9, unix.RTN_THROW))
}

// nowhere adds routes of a kind that leads nowhere.
func nowhere(network, kind int) error {
	for _, prefix := range []string{fmt.Sprintf("10.244.%d.0/24", network), fmt.Sprintf("fd00:244:%d::/64", network)} {
		_, dst, err := net.ParseCIDR(prefix)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{Dst: dst, Type: kind}); err != nil {
			return fmt.Errorf("add a route of type %d to %s: %w", kind, prefix, err)
		}
	}
	return nil
}
