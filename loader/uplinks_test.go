package loader

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// TestUplinks reads the kernel's tables.
func TestUplinks(t *testing.T) {
	required := func(names ...string) []Uplink { return named(names) }
	tests := []struct {
		name  string
		setUp func(*testing.T)
		names []string
		keep  []string
		want  []Uplink
	}{
		{
			name:  "explicit names are taken as they are, existing or not",
			setUp: func(t *testing.T) { addRoute(t, addVeth(t, "up0"), "0.0.0.0/0") },
			names: []string{"later", "now", "later"},
			want:  required("later", "now"),
		},
		{
			name:  "an IPv4 default route makes an uplink",
			setUp: func(t *testing.T) { addRoute(t, addVeth(t, "up0"), "0.0.0.0/0"); addVeth(t, "pod0") },
			want:  required("up0"),
		},
		{
			name:  "an IPv6 default route makes an uplink",
			setUp: func(t *testing.T) { addRoute(t, addVeth(t, "up0"), "::/0") },
			want:  required("up0"),
		},
		{
			name: "a route without a gateway does not, one by a gateway does",
			setUp: func(t *testing.T) {
				addRoute(t, addVeth(t, "pod0"), "10.1.0.7/32")
				addRoute(t, addVeth(t, "pod1"), "10.1.0.8/32")
				up := addVeth(t, "up0")
				addRoute(t, up, "169.254.9.0/24")
				addGateway(t, up, "10.0.0.0/8", "169.254.9.1")
			},
			want: []Uplink{{Name: "up0"}},
		},
		{
			name: "every hop of a multipath default route is an uplink",
			setUp: func(t *testing.T) {
				addMultipath(t, addVeth(t, "up0"), addVeth(t, "up1"))
			},
			want: required("up0", "up1"),
		},
		{
			name: "the node's addresses make uplinks, and so do others, but not pods'",
			setUp: func(t *testing.T) {
				addAddr(t, addVeth(t, "up0"), "192.0.2.1/24")
				addAddr(t, addVeth(t, "up1"), "2001:db8::1/64")
				addAddr(t, addVeth(t, "pod0"), "10.1.0.1/24")
				addAddr(t, addVeth(t, "pod1"), "fd00:1::1/64")
				addAddr(t, addVeth(t, "vlan7"), "198.51.100.7/24")
				addAddr(t, addBridge(t, "storage6"), "fd00:5::7/64")
			},
			want: []Uplink{{Name: "storage6"}, {Name: "up0", Required: true}, {Name: "up1", Required: true}, {Name: "vlan7"}},
		},
		{
			name: "before the node is known, only what is sure and what has programs",
			setUp: func(t *testing.T) {
				addAddr(t, addVeth(t, "vlan7"), "198.51.100.7/24")
				addAddr(t, addVeth(t, "vlan8"), "198.51.101.7/24")
				addRoute(t, addVeth(t, "up0"), "0.0.0.0/0")
			},
			keep: []string{"vlan8"},
			want: []Uplink{{Name: "up0", Required: true}, {Name: "vlan8"}},
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
			want: required("br0"),
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
			got, err := UplinkChoice{
				Names: tc.names, Keep: tc.keep,
				NodeAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
				PodCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32")},
			}.Choose()
			must(t, "choose", err)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestWhichDevicesAreUplinks is the decision alone: what a device has, and which it is.
func TestWhichDevicesAreUplinks(t *testing.T) {
	const no, yes, required = "no", "yes", "required"
	global, node, pods := addrsOf("198.51.100.7"), addrsOf("192.0.2.1"), addrsOf("10.1.0.1")
	tests := []struct {
		name string
		dev  wayIn
		want string
	}{
		{"the node's NIC", wayIn{Name: "eth0", Kind: "device", Up: true, Addrs: node, Default: true}, required},
		{"the node's NIC in a container", wayIn{Name: "eth0", Kind: "veth", Up: true, Addrs: node}, required},
		{"a NIC with a default route alone", wayIn{Name: "eth0", Kind: "device", Up: true, Default: true}, required},
		{"a second NIC", wayIn{Name: "eth1", Kind: "device", Up: true, Addrs: global}, yes},
		{"a second NIC in a container", wayIn{Name: "eth1", Kind: "veth", Up: true, Addrs: global}, yes},
		{"a second NIC that is down", wayIn{Name: "eth1", Kind: "device", Addrs: global}, no},
		{"a second NIC with a link-local address", wayIn{Name: "eth1", Kind: "device", Up: true, Addrs: addrsOf("fe80::1", "169.254.7.1")}, no},
		{"an unnumbered NIC that a gateway is behind", wayIn{Name: "eth1", Kind: "device", Up: true, Addrs: addrsOf("fe80::1"), Gateway: true}, yes},
		{"a VLAN", wayIn{Name: "eth0.7", Kind: "vlan", Up: true, Addrs: global}, yes},
		{"a bond", wayIn{Name: "bond0", Kind: "bond", Up: true, Addrs: addrsOf("2001:db8:7::7")}, yes},
		{"a member of a bond", wayIn{Name: "eth1", Kind: "device", Up: true, Member: true, Addrs: global}, no},
		{"a port of a bridge, with the node's address", wayIn{Name: "eth1", Kind: "device", Up: true, Member: true, Addrs: node, Default: true}, no},
		{"loopback", wayIn{Name: "lo", Up: true, Loopback: true, Addrs: node}, no},
		{"WireGuard", wayIn{Name: "wg0", Kind: "wireguard", Up: true, Addrs: addrsOf("10.66.0.1")}, yes},
		{"WireGuard with the default route", wayIn{Name: "wg0", Kind: "wireguard", Up: true, Default: true}, required},
		{"a bridge for virtual machines", wayIn{Name: "virbr0", Kind: "bridge", Up: true, Addrs: addrsOf("192.168.122.1")}, yes},
		{"the bridge of pods", wayIn{Name: "cni0", Kind: "bridge", Up: true, Addrs: pods}, no},
		{"the bridge of pods by another name", wayIn{Name: "br7", Kind: "bridge", Up: true, Addrs: pods}, no},
		{"an address of pods beside another", wayIn{Name: "br7", Kind: "bridge", Up: true, Addrs: append(addrsOf("198.51.100.7"), pods...)}, no},
		{"the link of a pod with its gateway's address", wayIn{Name: "veth7", Kind: "veth", Up: true, Addrs: pods}, no},
		{"the link of a pod without address", wayIn{Name: "cali7", Kind: "veth", Up: true, Addrs: addrsOf("fe80::1")}, no},
		{"flannel's overlay", wayIn{Name: "flannel.1", Kind: "vxlan", Up: true, Addrs: addrsOf("10.1.0.0"), Gateway: true}, no},
		{"Calico's overlay, with a range of its own", wayIn{Name: "vxlan.calico", Kind: "vxlan", Up: true, Addrs: addrsOf("172.20.1.0"), Gateway: true}, no},
		{"Cilium's device", wayIn{Name: "cilium_host", Kind: "veth", Up: true, Addrs: addrsOf("172.20.1.7"), Gateway: true}, no},
		{"a network of containers", wayIn{Name: "br-0123456789ab", Kind: "bridge", Up: true, Addrs: addrsOf("172.18.0.1")}, no},
		{"a plugin's device with the node's address", wayIn{Name: "ovnbr", Kind: "bridge", Up: true, Addrs: node}, required},
		{"a dummy that holds VIPs", wayIn{Name: "vips", Kind: "dummy", Up: true, Addrs: global}, no},
		{"a VRF", wayIn{Name: "blue", Kind: "vrf", Up: true, Addrs: global}, no},
		{"a device that --pod-link names", wayIn{Name: "tap7", Kind: "tun", Up: true, PodLink: true, Addrs: global}, no},
		{"a second NIC with an address of the range of pods and nodes in a flat network", wayIn{Name: "eth1", Kind: "device", Up: true, Addrs: addrsOf("192.0.7.7")}, yes},
		{"an uplink that --pod-link names", wayIn{Name: "eth0", Kind: "veth", Up: true, PodLink: true, Addrs: node}, required},
	}
	known := UplinkChoice{NodeAddrs: node, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, c := no, known
			if strings.HasSuffix(tc.name, "in a flat network") {
				c.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("192.0.0.0/16")}
			}
			for _, u := range c.choose([]wayIn{tc.dev}) {
				if got = yes; u.Required {
					got = required
				}
			}
			if got != tc.want {
				t.Errorf("%+v: %s, want %s", tc.dev, got, tc.want)
			}
		})
	}
}

func addrsOf(text ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range text {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

// addGateway adds a route by a gateway.
func addGateway(t testing.TB, dev netlink.Link, dst, gw string) {
	t.Helper()
	_, ipnet, err := net.ParseCIDR(dst)
	must(t, "parse route", err)
	must(t, "add route", netlink.RouteAdd(&netlink.Route{LinkIndex: dev.Attrs().Index, Dst: ipnet, Gw: net.ParseIP(gw)}))
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
		2:  {XDPTx: true, Away: true},
		3:  {Away: true},
		10: {Lower: 2, VLAN: 100, XDPTx: true},
	}
	if diff := cmp.Diff(want, wantedDevices(attachments, devices, DevicesBeside{}, nil), comparableAddr); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

var comparableAddr = cmpopts.EquateComparable(netip.Addr{})

func TestSyncDevicesWritesOnlyDifferences(t *testing.T) {
	newNetns(t)
	set := newSet(t)
	m := set.Devices()
	must(t, "put", m.Put(2, maps.Device{XDPTx: true}))
	must(t, "put", m.Put(99, maps.Device{XDPTx: true}))
	attachments := []Attachment{{Ifindex: 2, Hook: maps.HookXDP}, {Ifindex: 3, Hook: maps.HookXDP}}
	for _, wantWrites := range []uint64{2, 0} { // 99 goes, 3 comes; then nothing
		before := set.Writes()
		must(t, "sync", SyncDevices(m, attachments, DevicesBeside{}))
		if got := set.Writes() - before; got != wantWrites {
			t.Errorf("%d writes, want %d", got, wantWrites)
		}
	}
	got, err := m.All()
	must(t, "read", err)
	if diff := cmp.Diff(map[uint32]maps.Device{2: {XDPTx: true}, 3: {XDPTx: true}}, got, comparableAddr); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFlowsLeaveFromAnAddressOfTheirDevice(t *testing.T) {
	at := func(name string, index int) Attachment {
		return Attachment{Device: name, Ifindex: index, Hook: maps.HookTCIngress}
	}
	attachments := []Attachment{at("eth0", 2), at("vxlan0", 3), at("ovn0", 4), at("eth1", 5), at("tun0", 6)}
	sources := map[int][]netip.Addr{
		2: addrsOf("192.0.2.7", "192.0.2.1", "2001:db8::1"), // the first is not the node's
		3: addrsOf("10.1.1.0"), 4: addrsOf("10.1.0.2"), 5: addrsOf("198.51.100.7", "198.51.100.8"),
	}
	b := DevicesBeside{
		NodeAddrs: addrsOf("192.0.2.1", "2001:db8::1"),
		Chosen: []Uplink{
			{Name: "eth0", Required: true}, {Name: "vxlan0", Answers: true},
			{Name: "ovn0", Answers: true, Mixed: true}, {Name: "eth1"}, {Name: "tun0"},
		},
	}
	a := netip.MustParseAddr
	want := map[uint32]maps.Device{
		2: {Away: true, SNAT4: a("192.0.2.1"), SNAT6: a("2001:db8::1")},
		3: {Away: true, Answers: true, SNAT4: a("10.1.1.0")},
		4: {Answers: true, SNAT4: a("10.1.0.2")},
		5: {Away: true, SNAT4: a("198.51.100.7")},
		6: {Away: true}, // the node's address will do
	}
	if diff := cmp.Diff(want, wantedDevices(attachments, nil, b, sources), comparableAddr); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Programs of a device above another are told that those below have looked.
func TestDevicesAboveOthersWithProgramsAreKnown(t *testing.T) {
	at := func(index int) Attachment { return Attachment{Ifindex: index, Hook: maps.HookTCIngress} }
	above := func(index, parent, netns int) netlink.LinkAttrs {
		return netlink.LinkAttrs{Index: index, ParentIndex: parent, NetNsID: netns}
	}
	devices := []netlink.Link{
		&netlink.Macvlan{LinkAttrs: above(3, 2, -1)},
		&netlink.Macvlan{LinkAttrs: above(4, 9, -1)},         // above one without programs
		&netlink.Macvlan{LinkAttrs: above(5, 2, 0)},          // above one of another namespace
		&netlink.Vxlan{LinkAttrs: above(6, 2, -1)},           // a tunnel: what comes in is new
		&netlink.Vlan{LinkAttrs: above(7, 2, -1), VlanId: 5}, // TC alone below
	}
	want := map[uint32]bool{2: false, 3: true, 4: false, 5: false, 6: false, 7: true}
	got := make(map[uint32]bool)
	for i, d := range wantedDevices([]Attachment{at(2), at(3), at(4), at(5), at(6), at(7)}, devices, DevicesBeside{}, nil) {
		got[i] = d.Stacked
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stacked (-want +got):\n%s", diff)
	}
}
