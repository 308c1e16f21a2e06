package sockets

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ebb-lb/ebb/loader/sockdiag"
	"github.com/ebb-lb/ebb/maps"
)

var (
	pod     = netip.MustParseAddrPort("10.0.1.7:5353")
	other   = netip.MustParseAddrPort("10.0.1.8:5353")
	service = netip.MustParseAddrPort("10.96.0.10:53")
)

func TestWhoLeavesABackend(t *testing.T) {
	tests := []struct {
		name    string
		backend *maps.Backend // nil: its index is free
		// udp, tcp, reset: whether datagrams, connections, and connections that are
		// to be reset leave.
		udp, tcp, reset bool
	}{
		{"active", &maps.Backend{State: maps.Active, Generation: 2}, false, false, false},
		{"draining and serving", &maps.Backend{State: maps.Draining, Generation: 2}, false, false, false},
		{"draining and not serving", &maps.Backend{State: maps.Draining, Generation: 2, Unserving: true}, true, false, false},
		{"gone", &maps.Backend{State: maps.Gone, Generation: 2}, true, false, true},
		{"followed by another of its index", &maps.Backend{State: maps.Active, Generation: 3}, true, false, true},
		{"forgotten", nil, true, false, true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			backends := map[maps.BackendID]maps.Backend{6: {State: maps.Gone, Generation: 2}}
			if tc.backend != nil {
				backends[5] = *tc.backend
			}
			leaves := func(p maps.Proto, reset bool) bool {
				e := Entry{maps.SocketKey{Proto: p}, maps.SocketPeer{Backend: 5, Generation: 2}}
				return e.Leaves(backends, reset)
			}
			if got := leaves(maps.UDP, false); got != tc.udp {
				t.Errorf("UDP: %v", got)
			}
			if got := leaves(maps.UDP, true); got != tc.udp {
				t.Errorf("UDP where TCP is reset: %v", got)
			}
			if got := leaves(maps.TCP, false); got != tc.tcp {
				t.Errorf("TCP: %v", got)
			}
			if got := leaves(maps.TCP, true); got != tc.reset {
				t.Errorf("TCP that is reset: %v", got)
			}
		})
	}
}

func TestWhatBecomesOfASocketAndItsEntries(t *testing.T) {
	shown := Entry{Key: maps.SocketKey{Cookie: 1, Addr: pod, Proto: maps.UDP, Way: maps.SocketBackend}, Peer: maps.SocketPeer{Addr: service}}
	kept := Entry{Key: maps.SocketKey{Cookie: 1, Addr: service, Proto: maps.UDP, Way: maps.SocketDialled}, Peer: maps.SocketPeer{Addr: pod}}
	unconnected := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	tests := []struct {
		name    string
		entries []Entry
		peer    netip.AddrPort // of the socket; invalid: it is not there
		closed  bool
		gone    []Entry // the entries that go
	}{
		{"connected to the backend", []Entry{shown}, pod, true, []Entry{shown}},
		{"connected to another one", []Entry{shown}, other, false, nil},
		{"connected to another port", []Entry{shown}, netip.AddrPortFrom(pod.Addr(), 1), false, nil},
		{"not connected", []Entry{shown, kept}, unconnected, false, nil},
		{"connected to the pod by its address", []Entry{kept}, pod, false, nil},
		{"connected to what it dialled", []Entry{kept}, service, false, nil},
		{"not there", []Entry{shown, kept}, netip.AddrPort{}, false, []Entry{shown, kept}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			there := map[uint64]sockdiag.Socket{2: {Cookie: 2, Peer: pod}}
			if tc.peer.IsValid() {
				there[1] = sockdiag.Socket{Cookie: 1, Peer: tc.peer}
			}
			f := Decide(tc.entries, there)
			c, closed := f.Close[1]
			if closed != tc.closed || len(f.Close) > 1 {
				t.Errorf("closed: %v", f.Close)
			}
			var want []maps.SocketKey
			for _, e := range tc.gone {
				want = append(want, e.Key)
			}
			if got := slices.Concat(c.Entries, f.Vanished); !slices.Equal(got, want) {
				t.Errorf("entries that go are %v, want %v", got, want)
			}
		})
	}
}
