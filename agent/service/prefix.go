package service

import "net/netip"

// UnmapPrefix returns a range of IPv4 that is written as one of IPv6 for what it is, as
// kube-proxy takes it, and others as they are. One with addresses of both is not valid
// then.
func UnmapPrefix(p netip.Prefix) netip.Prefix {
	if !p.Addr().Is4In6() {
		return p
	}
	return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
}
