package loader

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

func TestUplinks(t *testing.T) {
	node := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	tests := []struct {
		name  string
		setUp func(*testing.T)
		names []string
		want  []string
	}{
		{
			name:  "explicit names are taken as they are, existing or not",
			setUp: func(t *testing.T) { addRoute(t, addVeth(t, "up0"), "0.0.0.0/0") },
			names: []string{"later", "now", "later"},
			want:  []string{"later", "now"},
		},
		{
			name:  "an IPv4 default route makes an uplink",
			setUp: func(t *testing.T) { addRoute(t, addVeth(t, "up0"), "0.0.0.0/0"); addVeth(t, "pod0") },
			want:  []string{"up0"},
		},
		{
			name:  "an IPv6 default route makes an uplink",
			setUp: func(t *testing.T) { addRoute(t, addVeth(t, "up0"), "::/0") },
			want:  []string{"up0"},
		},
		{
			name:  "a route to a network does not",
			setUp: func(t *testing.T) { addRoute(t, addVeth(t, "up0"), "10.0.0.0/8") },
		},
		{
			name: "every hop of a multipath default route is an uplink",
			setUp: func(t *testing.T) {
				addMultipath(t, addVeth(t, "up0"), addVeth(t, "up1"))
			},
			want: []string{"up0", "up1"},
		},
		{
			name: "the node's addresses make uplinks",
			setUp: func(t *testing.T) {
				addAddr(t, addVeth(t, "up0"), "192.0.2.1/24")
				addAddr(t, addVeth(t, "up1"), "2001:db8::1/64")
				addAddr(t, addVeth(t, "pod0"), "10.1.0.1/24")
			},
			want: []string{"up0", "up1"},
		},
		{
			name: "loopback is none, even with the node's address",
			setUp: func(t *testing.T) {
				addAddr(t, setUp(t, "lo"), "192.0.2.1/32")
			},
		},
		{
			name: "of a bridge it is the bridge, not its member",
			setUp: func(t *testing.T) {
				member, br := addVeth(t, "up0"), addBridge(t, "br0")
				must(t, "enslave", netlink.LinkSetMaster(member, br))
				addAddr(t, member, "192.0.2.1/24")
				addRoute(t, br, "0.0.0.0/0")
			},
			want: []string{"br0"},
		},
		{
			name: "an unreachable default route leads nowhere",
			setUp: func(t *testing.T) {
				setUp(t, "lo")
				_, dst, err := net.ParseCIDR("0.0.0.0/0")
				must(t, "parse", err)
				must(t, "add route", netlink.RouteAdd(&netlink.Route{Dst: dst, Type: unix.RTN_UNREACHABLE}))
			},
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			newNetns(t)
			tc.setUp(t)
			got, err := Uplinks(tc.names, node)
			must(t, "uplinks", err)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// addMultipath adds an IPv4 default route over two devices.
func addMultipath(t testing.TB, devs ...netlink.Link) {
	t.Helper()
	r := &netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}}
	for _, dev := range devs {
		r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{LinkIndex: dev.Attrs().Index})
	}
	must(t, "add multipath route", netlink.RouteAdd(r))
}

func TestMembersOfAVRFAreUplinksOfTheirOwn(t *testing.T) {
	vrf := &netlink.Vrf{LinkAttrs: netlink.LinkAttrs{Index: 3}}
	bond := &netlink.Bond{LinkAttrs: netlink.LinkAttrs{Index: 4}}
	if diff := cmp.Diff(map[int]bool{3: true}, vrfDevices([]netlink.Link{vrf, bond})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func vlan(ifindex, lower, id int) *netlink.Vlan {
	attrs := netlink.NewLinkAttrs()
	attrs.Index, attrs.ParentIndex = ifindex, lower
	return &netlink.Vlan{LinkAttrs: attrs, VlanId: id, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
}

func TestXDPMaySendThroughItsDevicesAndVLANsAboveThem(t *testing.T) {
	qinq := vlan(12, 2, 7)
	qinq.VlanProtocol = netlink.VLAN_PROTOCOL_8021AD
	foreign := vlan(13, 2, 8)
	foreign.NetNsID = 0
	devices := []netlink.Link{
		&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 2}},
		vlan(10, 2, 100), // above a device with XDP
		vlan(11, 3, 100), // above a device without
		qinq,             // not a tag XDP writes
		foreign,          // its lower device is in another namespace
		vlan(14, 10, 5),  // two tags
	}
	attachments := []Attachment{
		{Ifindex: 2, Hook: maps.HookXDP, Mode: modeNative},
		{Ifindex: 2, Hook: maps.HookTCIngress, Mode: modeTCX},
		{Ifindex: 3, Hook: maps.HookTCIngress, Mode: modeTCX},
	}
	want := map[uint32]maps.Device{
		2:  {XDPTx: true},
		10: {Lower: 2, VLAN: 100, XDPTx: true},
	}
	if diff := cmp.Diff(want, wantedDevices(attachments, devices)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSyncDevicesWritesOnlyDifferences(t *testing.T) {
	newNetns(t)
	set := newSet(t)
	m := set.Devices()
	must(t, "put", m.Put(2, maps.Device{XDPTx: true}))
	must(t, "put", m.Put(99, maps.Device{XDPTx: true}))
	attachments := []Attachment{{Ifindex: 2, Hook: maps.HookXDP}, {Ifindex: 3, Hook: maps.HookXDP}}
	for _, wantWrites := range []uint64{2, 0} { // 99 goes, 3 comes; then nothing
		before := set.Writes()
		must(t, "sync", SyncDevices(m, attachments))
		if got := set.Writes() - before; got != wantWrites {
			t.Errorf("%d writes, want %d", got, wantWrites)
		}
	}
	got, err := m.All()
	must(t, "read", err)
	if diff := cmp.Diff(map[uint32]maps.Device{2: {XDPTx: true}, 3: {XDPTx: true}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
