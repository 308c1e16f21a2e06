package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// PodBridge is the node's bridge for pods, if Config.BridgedPods.
	PodBridge = "cni0"
	// PodTunnel is the node's tunnel to other nodes, if Config.Overlay.
	PodTunnel = "vxlan0"

	tunnelID, tunnelPort = 1, 4789
	// tunnelHeaders is what VXLAN over IPv4 adds to a packet.
	tunnelHeaders = 50
)

func (c Config) podMTU() int {
	if c.Overlay {
		return c.MTU - tunnelHeaders
	}
	return c.MTU
}

// addPodNetwork makes what all pods of the node share, in the namespace of the
// calling thread.
func (n *Node) addPodNetwork() error {
	if n.cfg.BridgedPods {
		if err := n.addPodBridge(); err != nil {
			return err
		}
	}
	if n.cfg.Overlay {
		return n.addTunnel()
	}
	return nil
}

// addPodBridge gives the bridge a MAC address of its own: else it has the lowest of
// its ports, and pods lose their gateway when one comes or goes.
func (n *Node) addPodBridge() error {
	gateway4, gateway6 := n.bridgeGateways()
	if err := addBridge(PodBridge, n.cfg.podMTU(), gateway4, gateway6); err != nil {
		return err
	}
	dev, err := netlink.LinkByName(PodBridge)
	if err != nil {
		return fmt.Errorf("find %s: %w", PodBridge, err)
	}
	if err := netlink.LinkSetHardwareAddr(dev, net.HardwareAddr{2, 0xeb, 0xb1, 0, 0, byte(n.number)}); err != nil {
		return fmt.Errorf("set MAC address of %s: %w", PodBridge, err)
	}
	return nil
}

// bridgeGateways returns addresses that no pod gets: see maxPods.
func (n *Node) bridgeGateways() (v4, v6 netip.Prefix) {
	a4, a6 := podAddrs(n.PodCIDR4, n.PodCIDR6, maxPods+1)
	return netip.PrefixFrom(a4, n.PodCIDR4.Bits()), netip.PrefixFrom(a6, n.PodCIDR6.Bits())
}

// plugIntoBridge configures both ends of the link of a bridged pod.
func (p *Pod) plugIntoBridge(inside, host end) error {
	gateway4, gateway6 := p.Node.bridgeGateways()
	err := host.ns.Do(func() error { return enslave(host.dev, PodBridge) })
	if err != nil {
		return err
	}
	if err := host.configure(settings{features: p.Node.cfg.PodPeer}); err != nil {
		return err
	}
	return inside.configure(settings{
		addrs:    prefixes(netip.PrefixFrom(p.Addr4, gateway4.Bits()), netip.PrefixFrom(p.Addr6, gateway6.Bits())),
		routes:   defaultRoutes(Uplink, gateway4.Addr(), gateway6.Addr()),
		features: p.Node.cfg.PodLink,
	})
}

// tunnelEnd returns the addresses of the node's end of the tunnels.
func (n *Node) tunnelEnd() (v4, v6 netip.Prefix, mac net.HardwareAddr) {
	last := byte(n.number)
	v4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 31, 255, last}), 24)
	a6 := netip.MustParseAddr("fd00:255::").As16()
	a6[15] = last
	return v4, netip.PrefixFrom(netip.AddrFrom16(a6), 64), net.HardwareAddr{2, 0xeb, 0xb0, 0, 0, last}
}

func (n *Node) addTunnel() error {
	v4, v6, mac := n.tunnelEnd()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = PodTunnel, n.cfg.podMTU(), mac
	err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: tunnelID, Port: tunnelPort, SrcAddr: n.Addr4.AsSlice()})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("add tunnel: the kernel has no vxlan devices (CONFIG_VXLAN): %w", err)
	}
	if err != nil {
		return fmt.Errorf("add tunnel: %w", err)
	}
	return errors.Join(linkUp(PodTunnel), addAddr(PodTunnel, v4), addAddr(PodTunnel, v6))
}

// tunnelTo leads packets for the pods of peer through the tunnel, in the
// namespace of the calling thread. Nothing is learned: all is known.
func (n *Node) tunnelTo(peer *Node) error {
	dev, err := netlink.LinkByName(PodTunnel)
	if err != nil {
		return fmt.Errorf("find %s: %w", PodTunnel, err)
	}
	v4, v6, mac := peer.tunnelEnd()
	neigh := func(family, flags int, ip netip.Addr) error {
		err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: dev.Attrs().Index, Family: family, Flags: flags,
			State: netlink.NUD_PERMANENT, IP: ip.AsSlice(), HardwareAddr: mac,
		})
		if err != nil {
			return fmt.Errorf("add neighbour %s: %w", ip, err)
		}
		return nil
	}
	return errors.Join(
		neigh(unix.AF_BRIDGE, netlink.NTF_SELF, peer.Addr4),
		neigh(netlink.FAMILY_V4, 0, v4.Addr()),
		neigh(netlink.FAMILY_V6, 0, v6.Addr()),
		addRoute(route{dst: peer.PodCIDR4, via: v4.Addr(), dev: PodTunnel}),
		addRoute(route{dst: peer.PodCIDR6, via: v6.Addr(), dev: PodTunnel}))
}
