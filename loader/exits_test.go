package loader

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWhichDevicesSeeAnswers is the decision alone, for the devices of one node.
func TestWhichDevicesSeeAnswers(t *testing.T) {
	nic := wayIn{Name: "eth0", Kind: "device", Up: true, Addrs: addrsOf("192.0.2.1"), Default: true}
	bridge := wayIn{Name: "br-ex", Kind: "bridge", Up: true, Addrs: addrsOf("192.0.2.1"), Default: true}
	lan := wayIn{Name: "br-lan", Kind: "bridge", Up: true, Addrs: addrsOf("198.51.100.1")}
	port := func(name, kind, master string) wayIn {
		return wayIn{Name: name, Kind: kind, Up: true, Member: true, Master: master}
	}
	eth0 := Uplink{Name: "eth0", Required: true}
	tests := []struct {
		name    string
		names   []string
		devices []wayIn
		want    []Uplink
	}{
		{"a NIC alone", nil, []wayIn{nic, {Name: "lo", Loopback: true, Up: true}}, []Uplink{eth0}},
		{"a tunnel to other nodes", nil, []wayIn{nic, {Name: "flannel.1", Kind: "vxlan", Up: true, Tunnel: true, Addrs: addrsOf("10.1.1.0")}},
			[]Uplink{eth0, {Name: "flannel.1", Answers: true}}},
		{"a tunnel that is down", nil, []wayIn{nic, {Name: "tunl0", Kind: "ipip", Tunnel: true}}, []Uplink{eth0}},
		{"a NIC that was not named", []string{"eth0"}, []wayIn{nic, {Name: "eth1", Kind: "device", Up: true, Addrs: addrsOf("198.51.100.7")}},
			[]Uplink{eth0, {Name: "eth1", Answers: true, Mixed: true}}},
		{"a device of the network plugin with routes by gateways", nil, []wayIn{nic, {Name: "ovn-k8s-mp0", Kind: "openvswitch", Up: true, Beyond: true, Addrs: addrsOf("10.1.0.2")}},
			[]Uplink{eth0, {Name: "ovn-k8s-mp0", Answers: true, Mixed: true}}},
		{"the bridge of pods, and their links", nil, []wayIn{nic, {Name: "cni0", Kind: "bridge", Up: true, Addrs: addrsOf("10.1.0.1")},
			{Name: "mybr", Kind: "bridge", Up: true, Addrs: addrsOf("10.1.3.1")},
			port("veth1", "veth", "cni0"), {Name: "veth2", Kind: "veth", Up: true}}, []Uplink{eth0}},
		{"the node's bridge and its ports", nil, []wayIn{bridge, port("eth0", "device", "br-ex"), port("vnet1", "tuntap", "br-ex"), port("veth3", "veth", "br-ex")},
			[]Uplink{{Name: "br-ex", Required: true, Ports: true}, {Name: "eth0", Required: true, Port: true}, {Name: "veth3", Required: true, Port: true}, {Name: "vnet1", Required: true, Port: true}}},
		{"a bridge that may be anybody's: its NIC", nil, []wayIn{nic, lan, port("eth1", "device", "br-lan"), port("veth3", "veth", "br-lan")},
			[]Uplink{{Name: "br-lan", Ports: true}, eth0, {Name: "eth1", Port: true}}},
		{"a bridge that may be anybody's: pods or machines alone", nil, []wayIn{nic, lan, port("veth3", "veth", "br-lan")},
			[]Uplink{{Name: "br-lan", Mixed: true}, eth0}},
		{"members of a bond are the bond", nil, []wayIn{{Name: "bond0", Kind: "bond", Up: true, Default: true}, port("eth0", "device", "bond0")},
			[]Uplink{{Name: "bond0", Required: true}}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			c := UplinkChoice{
				Names: tc.names, NodeAddrs: addrsOf("192.0.2.1"),
				PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
			}
			uplinks := named(tc.names)
			if len(tc.names) == 0 {
				uplinks = c.choose(tc.devices)
			}
			if diff := cmp.Diff(tc.want, c.complete(uplinks, tc.devices)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
