package stations

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab"
)

// A switch that floods shows every node the frames of all others: each would send them
// on once more, and the client hears from two backends.
func TestNodesOnAFloodingSwitchServeTheirOwnFramesOnly(t *testing.T) {
	for _, xdp := range modes {
		t.Run("xdp "+xdp, func(t *testing.T) {
			w := newWorld(t)
			w.do(w.lab.Router, flood)
			for _, n := range w.lab.Nodes {
				w.startAgent(n, xdp, lab.Uplink)
			}
			before := w.verdicts(w.there)
			n := 1000
			if testing.Short() {
				n = 20
			}
			w.wantService(n)
			after := w.verdicts(w.there)
			for _, v := range []maps.Verdict{maps.VerdictToLocal, maps.VerdictToRemote, maps.VerdictReplyRemote, maps.VerdictNoFlow} {
				if got := after[v] - before[v]; got != 0 {
					t.Errorf("the other node has %d packets %s", got, v)
				}
			}
			if after[maps.VerdictNotOurs] == before[maps.VerdictNotOurs] {
				t.Error("the other node has seen no frames of others: the switch does not flood")
			}
			t.Logf("the other node has left alone %d frames", after[maps.VerdictNotOurs]-before[maps.VerdictNotOurs])
		})
	}
}

// flood makes the bridge forget at once where a station is.
func flood() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridge
	var ageing uint32
	br := &netlink.Bridge{LinkAttrs: attrs, AgeingTime: &ageing}
	ifindex, err := index(bridge)
	if err != nil {
		return err
	}
	br.Index = ifindex
	return netlink.LinkModify(br)
}

// virtual is the MAC of a virtual router (RFC 9568).
var virtual = net.HardwareAddr{0, 0, 0x5e, 0, 1, 1}

// A virtual router's address is on a macvlan device above the uplink, as keepalived makes
// it, and may come while an agent runs.
func TestAVirtualRoutersMACIsTheNodes(t *testing.T) {
	hop4, hop6 := netip.MustParseAddr("198.51.100.200"), netip.MustParseAddr("2001:db8:51::200")
	for _, xdp := range modes {
		t.Run("xdp "+xdp, func(t *testing.T) {
			w := newWorld(t)
			w.startAgent(w.here, xdp, lab.Uplink)
			w.do(w.here.NS, func() error {
				attrs := netlink.NewLinkAttrs()
				attrs.Name, attrs.HardwareAddr = "vrrp0", virtual
				dev := &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_PRIVATE}
				return errors.Join(os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("0"), 0o644),
					os.WriteFile("/proc/sys/net/ipv4/conf/default/rp_filter", []byte("0"), 0o644),
					addUpper(dev, lab.Uplink, netip.PrefixFrom(hop4, 32), netip.PrefixFrom(hop6, 128)))
			})
			w.do(w.lab.Router, func() error {
				vip4, vip6 := lab.DefaultVIPs()
				return errors.Join(neighbour(hop4), neighbour(hop6), via(vip4, hop4, bridge), via(vip6, hop6, bridge))
			})
			w.awaitService()
			before := w.verdicts(w.here)
			w.wantService(40)
			after := w.verdicts(w.here)
			for _, v := range []maps.Verdict{maps.VerdictToLocal, maps.VerdictToRemote} {
				if after[v] == before[v] {
					t.Errorf("no packets %s", v)
				}
			}
		})
	}
}

func neighbour(a netip.Addr) error {
	dev, err := index(bridge)
	if err != nil {
		return err
	}
	return netlink.NeighSet(&netlink.Neigh{LinkIndex: dev, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: virtual})
}

// Clients come by a VLAN and are answered there, other nodes are reached without a tag.
func TestClientsMayComeByAVLAN(t *testing.T) {
	const tag, dev = 100, "vlan100"
	node4, node6 := netip.MustParsePrefix("198.18.7.1/24"), netip.MustParsePrefix("2001:db8:187::1/64")
	router4, router6 := netip.MustParsePrefix("198.18.7.254/24"), netip.MustParsePrefix("2001:db8:187::fe/64")
	client4, client6 := lab.ClientAddrs()
	vip4, vip6 := lab.DefaultVIPs()
	vlan := func() netlink.Link {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = dev
		return &netlink.Vlan{LinkAttrs: attrs, VlanId: tag, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
	}
	for _, xdp := range modes {
		for name, uplinks := range map[string][]string{"both": {lab.Uplink, dev}, "the device below": {lab.Uplink}} {
			if xdp == "native" && len(uplinks) > 1 {
				continue // a VLAN device has no native XDP
			}
			t.Run("xdp "+xdp+"/uplinks: "+name, func(t *testing.T) {
				w := newWorld(t)
				w.do(w.lab.Router, func() error {
					if err := addUpper(vlan(), bridge, router4, router6); err != nil {
						return err
					}
					return errors.Join(via(vip4, node4.Addr(), dev), via(vip6, node6.Addr(), dev))
				})
				w.do(w.here.NS, func() error {
					if err := addUpper(vlan(), lab.Uplink, node4, node6); err != nil {
						return err
					}
					return errors.Join(via(client4, router4.Addr(), dev), via(client6, router6.Addr(), dev))
				})
				w.startAgent(w.here, xdp, uplinks...)
				w.wantService(20)
			})
		}
	}
}

// The uplink is a bond, whose members the programs of XDP run on.
func TestTheUplinkMayBeABond(t *testing.T) {
	const dev = "bond0"
	for _, xdp := range modes {
		t.Run("xdp "+xdp, func(t *testing.T) {
			w := newWorld(t)
			w.do(w.here.NS, bondUplink(w.here, dev))
			w.startAgent(w.here, xdp, dev)
			w.wantService(20)
		})
	}
}

// bondUplink moves what the uplink of n has, addresses and routes, to a bond of it.
func bondUplink(n *lab.Node, dev string) func() error {
	return func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = dev
		bond := netlink.NewLinkBond(attrs)
		bond.Mode, bond.Miimon = netlink.BOND_MODE_ACTIVE_BACKUP, 50
		if err := netlink.LinkAdd(bond); err != nil {
			return err
		}
		member, err := netlink.LinkByName(lab.Uplink)
		if err != nil {
			return err
		}
		routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(member, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if a.IP.IsGlobalUnicast() {
				if err := netlink.AddrDel(member, &a); err != nil {
					return err
				}
			}
		}
		if err := errors.Join(netlink.LinkSetDown(member), netlink.LinkSetMaster(member, bond)); err != nil {
			return err
		}
		err = errors.Join(netlink.LinkSetUp(member),
			raise(bond, netip.PrefixFrom(n.Addr4, 24), netip.PrefixFrom(n.Addr6, 64)))
		for _, r := range routes { // those by the member are gone, and those that prefer its address
			switch {
			case r.LinkIndex == member.Attrs().Index && r.Gw != nil:
				r.LinkIndex = bond.Index
			case r.LinkIndex == member.Attrs().Index || r.Src == nil:
				continue
			}
			err = errors.Join(err, netlink.RouteReplace(&r))
		}
		return err
	}
}
