package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Uplink is the name of the device by which clients, nodes and pods reach the
// rest of the lab.
const Uplink = "eth0"

const bridgeName = "br0"

// maxNodes keeps node numbers within one byte of their addresses.
const maxNodes = 99

// maxNodeName leaves room for a prefix in the 15 bytes of a device name.
const maxNodeName = 10

// The fixed part of the address plan: documentation prefixes (RFC 5737, RFC
// 3849), and a link-local gateway that every pod sees.
var (
	client4          = netip.MustParsePrefix("192.0.2.10/24")
	client6          = netip.MustParsePrefix("2001:db8:2::10/64")
	routerForClient4 = netip.MustParsePrefix("192.0.2.1/24")
	routerForClient6 = netip.MustParsePrefix("2001:db8:2::1/64")
	routerOnSegment4 = netip.MustParsePrefix("198.51.100.1/24")
	routerOnSegment6 = netip.MustParsePrefix("2001:db8:51::1/64")
	podGateway4      = netip.MustParsePrefix("169.254.1.1/32")
	podGateway6      = netip.MustParsePrefix("fe80::1/64")
)

// ClientAddrs returns the addresses of the client, IPv4 and IPv6.
func ClientAddrs() (v4, v6 netip.Addr) { return client4.Addr(), client6.Addr() }

// DefaultVIPs returns the virtual addresses of a lab whose Config names none.
func DefaultVIPs() (v4, v6 netip.Addr) {
	return netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:113::10")
}

// Config describes a lab. The zero value is a working one: nodes "node-a" and
// "node-b", the default virtual addresses at nodeA, offloads as the kernel has them.
type Config struct {
	// Nodes are the names of the nodes, at most 10 bytes each. Node i, counted
	// from 1, is 198.51.100.1i with pods in 10.244.i.0/24, IPv6 alike.
	Nodes []string
	// VIPs are addresses the router sends to VIPNode, which is the first node
	// unless it is set.
	VIPs    []netip.Addr
	VIPNode string
	// MTU of every link, in bytes.
	MTU int
	// BridgedPods puts the pods of a node on one bridge, where they reach each
	// other without the node. Else each has a link of its own, routed.
	BridgedPods bool
	// Overlay sends what pods of different nodes exchange through VXLAN tunnels.
	// The MTU of pods is smaller then.
	Overlay bool
	// UplinkPeer applies to the router's ends of the nodes' uplinks: to what
	// sends towards a node. Use NativeXDPPeer where XDP runs on the uplinks.
	UplinkPeer Features
	// NodeUplink applies to the nodes' own ends of the uplinks.
	NodeUplink Features
	// PodLink applies to the device inside each pod, PodPeer to its other end.
	PodLink, PodPeer Features
	// ClientLink applies to the device of the client.
	ClientLink Features
}

func (c Config) withDefaults() Config {
	if len(c.Nodes) == 0 {
		c.Nodes = []string{"node-a", "node-b"}
	}
	if len(c.VIPs) == 0 {
		v4, v6 := DefaultVIPs()
		c.VIPs = []netip.Addr{v4, v6}
	}
	if c.VIPNode == "" {
		c.VIPNode = c.Nodes[0]
	}
	if c.MTU == 0 {
		c.MTU = 1500
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if len(c.Nodes) > maxNodes {
		errs = append(errs, fmt.Errorf("%d nodes, at most %d", len(c.Nodes), maxNodes))
	}
	for i, n := range c.Nodes {
		if n == "" || len(n) > maxNodeName {
			errs = append(errs, fmt.Errorf("node name %q: want 1 to %d bytes", n, maxNodeName))
		}
		if slices.Contains(c.Nodes[:i], n) {
			errs = append(errs, fmt.Errorf("node name %q is used twice", n))
		}
	}
	if !slices.Contains(c.Nodes, c.VIPNode) {
		errs = append(errs, fmt.Errorf("node for virtual addresses %q is not one of %q", c.VIPNode, c.Nodes))
	}
	if c.MTU < 1280 {
		errs = append(errs, fmt.Errorf("mtu %d: IPv6 needs 1280", c.MTU))
	}
	return errors.Join(errs...)
}

// nodeAddrs returns the addresses of node number n, counted from 1.
func nodeAddrs(n int) (v4, v6 netip.Prefix) {
	a4, a6 := routerOnSegment4.Addr().As4(), routerOnSegment6.Addr().As16()
	a4[3] = byte(10 + n)
	a6[15] = bcd(10 + n)
	return netip.PrefixFrom(netip.AddrFrom4(a4), 24), netip.PrefixFrom(netip.AddrFrom16(a6), 64)
}

// podCIDRs returns the pod prefixes of node number n, counted from 1.
func podCIDRs(n int) (v4, v6 netip.Prefix) {
	a6 := netip.MustParseAddr("fd00:244::").As16()
	a6[5] = byte(n)
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(n), 0}), 24),
		netip.PrefixFrom(netip.AddrFrom16(a6), 64)
}

// podAddrs returns the addresses of pod number i, counted from 1, within the
// pod prefixes of its node.
func podAddrs(cidr4, cidr6 netip.Prefix, i int) (v4, v6 netip.Addr) {
	a4, a6 := cidr4.Addr().As4(), cidr6.Addr().As16()
	a4[3], a6[15] = byte(i), byte(i)
	return netip.AddrFrom4(a4), netip.AddrFrom16(a6)
}

// bcd writes n, 0 to 109, so that its hexadecimal form reads as the decimal one.
func bcd(n int) byte { return byte(n/10<<4 | n%10) }

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func prefixes(p ...netip.Prefix) []netip.Prefix { return p }
