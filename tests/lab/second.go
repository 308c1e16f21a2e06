package lab

import "net/netip"

// ConnectClient connects the client and n by a cable of their own, beside the router:
// both ends get a device of that name with these addresses. features are of the
// client's end.
func (l *Lab) ConnectClient(n *Node, dev string, client, node []netip.Prefix, features Features) error {
	a, b := end{ns: l.Client, dev: dev}, end{ns: n.NS, dev: dev}
	if err := connect(a, b, l.cfg.MTU); err != nil {
		return err
	}
	if err := a.configure(settings{addrs: client, features: features}); err != nil {
		return err
	}
	return b.configure(settings{addrs: node})
}

// RouteClient sends what the client sends to dst by a device and a gateway, which may
// be invalid, from an address of the client's.
func (l *Lab) RouteClient(dst netip.Addr, dev string, via, src netip.Addr) error {
	return l.Client.Do(func() error {
		return addRoute(route{dst: hostPrefix(dst), via: via, dev: dev, src: src})
	})
}

// RouterAddrs returns the client's gateways, IPv4 and IPv6.
func RouterAddrs() (v4, v6 netip.Addr) { return routerForClient4.Addr(), routerForClient6.Addr() }

// SegmentRouterAddrs returns the router's addresses towards the nodes.
func SegmentRouterAddrs() (v4, v6 netip.Addr) {
	return routerOnSegment4.Addr(), routerOnSegment6.Addr()
}
