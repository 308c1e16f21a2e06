package service

import (
	"net/netip"
	"slices"
)

// NodePortAddrs says which addresses of a node accept node ports. The zero
// value: the primary ones, which are the first of each family.
type NodePortAddrs struct {
	All bool
	// CIDRs: those in these ranges; in a family of which there is no range, all
	// (kube-proxy's NodePortAddresses).
	CIDRs []netip.Prefix
}

// Anywhere reports whether sockets of this node may dial node ports at any of its
// addresses, and on loopback: not if the operator has said on which.
func (n NodePortAddrs) Anywhere() bool { return len(n.CIDRs) == 0 }

// Of returns those of a node's addresses that accept node ports.
func (n NodePortAddrs) Of(addrs []netip.Addr) []netip.Addr {
	var chosen []netip.Addr
	for _, v4 := range []bool{true, false} {
		for _, a := range addrs {
			if a.Is4() == v4 && n.has(a, addrs) {
				chosen = append(chosen, a)
			}
		}
	}
	return chosen
}

func (n NodePortAddrs) has(a netip.Addr, addrs []netip.Addr) bool {
	switch {
	case n.All:
		return true
	case len(n.CIDRs) > 0:
		sameFamily := func(p netip.Prefix) bool { return p.Addr().Is4() == a.Is4() }
		contains := func(p netip.Prefix) bool { return p.Contains(a) }
		return slices.ContainsFunc(n.CIDRs, contains) || !slices.ContainsFunc(n.CIDRs, sameFamily)
	}
	first := slices.IndexFunc(addrs, func(other netip.Addr) bool { return other.Is4() == a.Is4() })
	return addrs[first] == a
}
