package loader

import (
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/maps"
)

func attrsOf(ifindex int, name string, mac byte, parent, master int) netlink.LinkAttrs {
	attrs := netlink.NewLinkAttrs()
	attrs.Index, attrs.Name, attrs.ParentIndex, attrs.MasterIndex = ifindex, name, parent, master
	if mac != 0 {
		attrs.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, 0, mac}
	}
	return attrs
}

func stationOf(ifindex uint32, tag uint16, mac byte) maps.Station {
	return maps.Station{Ifindex: ifindex, VLAN: tag, MAC: maps.MAC{2, 0, 0, 0, 0, mac}}
}

func TestStationsAreADeviceAndWhatIsStackedOnIt(t *testing.T) {
	vlanOf := func(attrs netlink.LinkAttrs, id int, proto netlink.VlanProtocol) netlink.Link {
		return &netlink.Vlan{LinkAttrs: attrs, VlanId: id, VlanProtocol: proto}
	}
	dot1q, ad := netlink.VLAN_PROTOCOL_8021Q, netlink.VLAN_PROTOCOL_8021AD
	foreign := attrsOf(13, "moved", 13, 2, 0)
	foreign.NetNsID = 0
	active, backup := attrsOf(30, "eth1", 30, 0, 32), attrsOf(31, "eth2", 31, 0, 32)
	active.Slave = &netlink.BondSlave{State: netlink.BondStateActive}
	backup.Slave = &netlink.BondSlave{State: netlink.BondStateBackup}
	devices := []netlink.Link{
		&netlink.Device{LinkAttrs: attrsOf(2, "eth0", 2, 0, 20)},
		&netlink.Device{LinkAttrs: attrsOf(3, "other", 3, 0, 21)},
		&netlink.Tuntap{LinkAttrs: attrsOf(4, "tun0", 0, 0, 0)},
		vlanOf(attrsOf(10, "eth0.100", 2, 2, 0), 100, dot1q),
		vlanOf(attrsOf(11, "qinq", 11, 2, 0), 100, ad),
		vlanOf(attrsOf(12, "inner", 12, 10, 0), 5, dot1q),
		vlanOf(foreign, 8, dot1q),
		&netlink.Macvlan{LinkAttrs: attrsOf(14, "vrrp0", 14, 2, 0)},
		&netlink.Macvlan{LinkAttrs: attrsOf(15, "vrrp100", 15, 10, 0)},
		&netlink.Vxlan{LinkAttrs: attrsOf(16, "vxlan0", 16, 2, 0)},
		&netlink.Bridge{LinkAttrs: attrsOf(20, "br0", 20, 0, 0)},
		vlanOf(attrsOf(22, "br0.7", 22, 20, 0), 7, dot1q),
		&netlink.Vrf{LinkAttrs: attrsOf(21, "vrf0", 21, 0, 0)},
		&netlink.Device{LinkAttrs: active},
		&netlink.Device{LinkAttrs: backup},
		&netlink.Bond{LinkAttrs: attrsOf(32, "bond0", 32, 0, 0)},
		vlanOf(attrsOf(33, "bond0.9", 32, 32, 0), 9, dot1q),
	}
	tests := map[string]struct {
		uplinks []string
		want    map[maps.Station]uint32
	}{
		"a device in a bridge": {[]string{"eth0", "absent"}, map[maps.Station]uint32{
			stationOf(2, 0, 2): 2, stationOf(2, 100, 2): 10, stationOf(2, 0, 14): 14, stationOf(2, 100, 15): 15,
			stationOf(2, 0, 20): 20, stationOf(2, 7, 22): 22,
		}},
		"a member of a VRF":                   {[]string{"other"}, map[maps.Station]uint32{stationOf(3, 0, 3): 3}},
		"no Ethernet header":                  {[]string{"tun0"}, map[maps.Station]uint32{}},
		"a VLAN device sees one tag the less": {[]string{"eth0.100"}, map[maps.Station]uint32{stationOf(10, 0, 2): 10, stationOf(10, 5, 12): 12, stationOf(10, 0, 15): 15}},
		"a bond, and its active member": {[]string{"bond0"}, map[maps.Station]uint32{
			stationOf(32, 0, 32): 32, stationOf(32, 9, 32): 33,
			stationOf(30, 0, 30): 30, stationOf(30, 0, 32): 32, stationOf(30, 9, 32): 33,
		}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, wantedStations(tc.uplinks, devices)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestStationsFollowTheirDevices(t *testing.T) {
	newNetns(t)
	set := newSet(t)
	m := set.Stations()
	up := addVeth(t, "up0")
	ifindex := uint32(up.Attrs().Index)
	sync := func(want ...byte) {
		t.Helper()
		must(t, "sync", SyncStations(m, []string{"up0"}))
		before := set.Writes()
		must(t, "sync again", SyncStations(m, []string{"up0"}))
		if n := set.Writes() - before; n != 0 {
			t.Errorf("%d writes without a change", n)
		}
		all, err := m.All()
		must(t, "read", err)
		var got []byte
		for s := range all {
			if s.Ifindex != ifindex || s.VLAN != 0 {
				t.Errorf("station %s", s)
			}
			got = append(got, s.MAC[5])
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	address := func(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, last} }
	must(t, "set address", netlink.LinkSetHardwareAddr(up, address(1)))
	sync(1)
	must(t, "set address", netlink.LinkSetHardwareAddr(up, address(2)))
	sync(2)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.ParentIndex = "vrrp0", address(3), up.Attrs().Index
	virtual := &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_PRIVATE}
	must(t, "add macvlan", netlink.LinkAdd(virtual))
	sync(2, 3)
	must(t, "delete macvlan", netlink.LinkDel(virtual))
	sync(2)
}
