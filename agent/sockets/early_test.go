package sockets

import (
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/loader/sockdiag"
	"github.com/ebb-lb/ebb/maps"
)

func TestWhoConnectedTooEarly(t *testing.T) {
	const host, aPod = 1, 7
	node := netip.MustParseAddrPort("192.0.2.1:53")
	tests := []struct {
		name     string
		peer     netip.AddrPort
		proto    maps.Proto
		netns    uint64
		again    uint8 // SYNs sent again
		byPacket bool
		fe       maps.Service
		early    bool
	}{
		{"UDP of a pod", service, maps.UDP, aPod, 0, false, maps.Service{}, true},
		{"UDP of the node", service, maps.UDP, host, 0, false, maps.Service{}, true},
		{"another port", netip.AddrPortFrom(service.Addr(), 54), maps.UDP, aPod, 0, false, maps.Service{}, false},
		{"TCP whose SYN was sent once", service, maps.TCP, aPod, 0, false, maps.Service{}, false},
		{"TCP whose SYN was sent again", service, maps.TCP, aPod, 1, false, maps.Service{}, true},
		{"a pod, pods by packet", service, maps.UDP, aPod, 0, true, maps.Service{}, false},
		{"the node, pods by packet", service, maps.UDP, host, 0, true, maps.Service{}, true},
		{"a pod, a service in packet mode", service, maps.UDP, aPod, 0, false, maps.Service{Packet: true}, false},
		{"the node, a service in packet mode", service, maps.UDP, host, 0, false, maps.Service{Packet: true}, true},
		{"a pod, source ranges that may not have it", service, maps.UDP, aPod, 0, false, maps.Service{Restricted: true}, false},
		{"a pod, source ranges that have all", service, maps.UDP, aPod, 0, false, maps.Service{Restricted: true, PodsIn: true}, true},
		{"a node port", service, maps.UDP, aPod, 0, false, maps.Service{NodePort: true}, false},
		{"an external IP of the node itself", node, maps.UDP, aPod, 0, false, maps.Service{}, false},
		{"a backend's address", pod, maps.UDP, aPod, 0, false, maps.Service{}, false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			v := view{
				frontends: make(map[maps.Frontend]maps.Service),
				addresses: map[netip.Addr]maps.AddressFlags{
					node.Addr(): maps.AddressExternal | maps.NodeAddress,
					// With IPVS the node has ClusterIPs on a device.
					service.Addr(): maps.AddressClusterIP | maps.NodeAddress,
				},
				backends: map[netip.AddrPort]bool{pod: true},
			}
			for _, at := range []netip.AddrPort{service, node, pod} {
				v.frontends[maps.Frontend{Addr: at.Addr(), Port: at.Port(), Proto: tc.proto}] = tc.fe
			}
			r := Reach{Host: host, PodsByPacket: tc.byPacket}
			if got := r.Early(sockdiag.Socket{Peer: tc.peer, Retransmits: tc.again}, tc.proto, tc.netns, v); got != tc.early {
				t.Errorf("too early: %v", got)
			}
		})
	}
}

func TestSocketsAreLookedThroughWhenAFrontendComes(t *testing.T) {
	f := maps.Frontend{Addr: service.Addr(), Port: service.Port(), Proto: maps.UDP}
	g := maps.Frontend{Addr: service.Addr(), Port: service.Port(), Proto: maps.TCP}
	type all = map[maps.Frontend]maps.Service
	for _, tc := range []struct {
		name        string
		before, now all
		want        bool
	}{
		{"the first", nil, all{f: {}}, true},
		{"none", nil, nil, false},
		{"the same", all{f: {}}, all{f: {HasEndpoints: true}}, false},
		{"one more", all{f: {}}, all{f: {}, g: {}}, true},
		{"one for another", all{f: {}}, all{g: {}}, true},
		{"one less", all{f: {}, g: {}}, all{f: {}}, false},
		{"to packet mode", all{f: {}}, all{f: {Packet: true}}, false},
		{"from packet mode", all{f: {Packet: true}}, all{f: {}}, true},
		{"no ranges any more", all{f: {Restricted: true}}, all{f: {}}, true},
		{"pods in all ranges", all{f: {Restricted: true}}, all{f: {Restricted: true, PodsIn: true}}, true},
	} {
		if got := anyNew(tc.before, tc.now); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}
