package loader

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
)

// withoutEthernet are the link types whose packets begin with the IP header for a TC
// program, and which the kernel sends without one: tun and WireGuard ("none"),
// tunnels, PPP. They are those that bpf_redirect() adds no header for.
var withoutEthernet = []string{"none", "ipip", "tunnel6", "sit", "gre", "ppp",
	"unknown519", "unknown823"} // RAWIP (modems), IP6GRE

// ethernet reports whether packets on dev begin with an Ethernet header.
func ethernet(dev netlink.Link) bool {
	// A loopback device has an empty one.
	return slices.Contains([]string{"ether", "loopback"}, dev.Attrs().EncapType)
}

// headed reports whether packets on dev begin with an Ethernet header, and not with
// their IP header. Of other devices no program knows what packets look like.
func headed(dev netlink.Link) (bool, error) {
	if ethernet(dev) {
		return true, nil
	}
	if slices.Contains(withoutEthernet, dev.Attrs().EncapType) {
		return false, nil
	}
	return false, fmt.Errorf("link type %s is neither Ethernet nor IP alone", dev.Attrs().EncapType)
}
