package loader

import (
	"cmp"
	"net/netip"
	"path"
	"slices"
)

// Uplink is a device by which packets of clients may come in, or that has to do with one.
type Uplink struct {
	Name string
	// Required: the node is not served without it. It was named, or has a default
	// route or an address of the node. Others are served as well as can be.
	Required bool
	// Port: it is a port of an uplink that is a bridge. netfilter looks at what goes by a
	// bridge there already (net.bridge.bridge-nf-call-iptables).
	Port bool
	// Answers: it is no uplink, but leads to other machines: a tunnel of the network
	// plugin, a NIC that was not named. Only answers come in by it, and leave by it.
	Answers bool
	// Mixed: pods of this node may be behind it as well as other machines.
	Mixed bool
	// Ports: it is a bridge some of whose ports are chosen.
	Ports bool
}

// UplinkChoice says which devices are uplinks.
type UplinkChoice struct {
	// Names are the uplinks, whatever else there is; none: they are found. They
	// need not exist.
	Names []string
	// NodeAddrs are the node's addresses.
	NodeAddrs []netip.Addr
	// PodCIDRs are ranges that pods have their addresses from: a device with such
	// an address leads to pods, or to pods of other nodes.
	PodCIDRs []netip.Prefix
	// PodLinks chooses devices that are pods' links.
	PodLinks PodChoice
	// Keep are devices to keep, if they exist, as long as the node's addresses and
	// the pods' ranges are not known; nil: they are known.
	Keep []string
}

// pluginDevices are the names that network plugins and container engines give to
// what is between pods and the node, and to tunnels between their nodes. Ranges of
// their own need not be in a Node object, so an address does not always tell.
var pluginDevices = []string{
	"cali*", "vxlan*.calico", "wireguard.cali", "wg-v6.cali", "tunl0", // Calico
	"cilium_*", "lxc*", // Cilium
	"flannel*", "cni*", "cbr*", "kube-bridge", "kube-dummy-if", "nodelocaldns", "kube-ipvs*",
	"antrea-*", "genev_sys_*", "ovn*", "weave", "vxlan-6784", "kilo*",
	"docker*", "br-[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]", "podman*",
}

// wayIn is what decides whether a device is an uplink.
type wayIn struct {
	Name string
	Kind string // as "ip link" calls it
	// Up, Loopback and Member are of the device: a member of a bridge or bond has
	// neither addresses nor routes of its own, its master counts.
	Up, Loopback, Member bool
	// PodLink: PodLinks names it.
	PodLink bool
	// Addrs are its addresses.
	Addrs []netip.Addr
	// Default: a default route leads to it; Gateway: one by a gateway to a part of
	// the world; Beyond: one by a gateway to anywhere, also to pods.
	Default, Gateway, Beyond bool
	// Master is the name of the device it is a port of.
	Master string
	// Tunnel: it only leads to other machines, by its kind.
	Tunnel bool
}

// Choose returns the uplinks among the devices of the network namespace of the
// calling thread, sorted by name.
func (c UplinkChoice) Choose() ([]Uplink, error) {
	if len(c.Names) > 0 {
		return named(c.Names), nil
	}
	devices, err := waysIn(c)
	if err != nil {
		return nil, err
	}
	return c.choose(devices), nil
}

// named are the uplinks of these names.
func named(names []string) []Uplink {
	var out []Uplink
	for _, name := range names {
		out = append(out, Uplink{Name: name, Required: true})
	}
	return sorted(out)
}

// Names returns the names of uplinks, in their order.
func Names(uplinks []Uplink) []string {
	var names []string
	for _, u := range uplinks {
		names = append(names, u.Name)
	}
	return names
}

func sorted(uplinks []Uplink) []Uplink {
	slices.SortFunc(uplinks, func(x, y Uplink) int { return cmp.Compare(x.Name, y.Name) })
	return slices.CompactFunc(uplinks, func(x, y Uplink) bool { return x.Name == y.Name })
}

// choose decides about all devices.
func (c UplinkChoice) choose(devices []wayIn) []Uplink {
	var out []Uplink
	for _, d := range devices {
		required := c.requires(d)
		if required || c.takes(d) {
			out = append(out, Uplink{Name: d.Name, Required: required})
		}
	}
	return sorted(out)
}

// requires reports whether clients are sure to come in by d.
func (c UplinkChoice) requires(d wayIn) bool {
	if d.Loopback || d.Member {
		return false
	}
	return d.Default || slices.ContainsFunc(d.Addrs, func(a netip.Addr) bool { return slices.Contains(c.NodeAddrs, a) })
}

// takes reports whether clients may come in by d: it leads to other machines, not
// to pods.
func (c UplinkChoice) takes(d wayIn) bool {
	if c.Keep != nil {
		return slices.Contains(c.Keep, d.Name)
	}
	if d.Loopback || d.Member || !d.Up || d.PodLink || receivesNothing(d.Kind) || isPluginDevice(d.Name) {
		return false
	}
	if slices.ContainsFunc(d.Addrs, c.isPods) {
		return false
	}
	return d.Gateway || slices.ContainsFunc(d.Addrs, netip.Addr.IsGlobalUnicast)
}

// isPods reports whether addr is from the ranges of pods. A range that nodes have their
// addresses from too, as in a flat network, tells nothing.
func (c UplinkChoice) isPods(addr netip.Addr) bool {
	return slices.ContainsFunc(c.PodCIDRs, func(p netip.Prefix) bool {
		return p.Contains(addr) && !slices.ContainsFunc(c.NodeAddrs, p.Contains)
	})
}

// receivesNothing reports whether devices of a kind only hold addresses. What comes
// in for a VRF comes in by its members.
func receivesNothing(kind string) bool { return kind == "dummy" || kind == "vrf" || kind == "ifb" }

func isPluginDevice(name string) bool {
	return slices.ContainsFunc(pluginDevices, func(pattern string) bool {
		ok, _ := path.Match(pattern, name)
		return ok
	})
}
