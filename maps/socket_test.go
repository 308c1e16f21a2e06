package maps

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func readSockets(t *testing.T, s *Set) map[SocketKey]SocketPeer {
	t.Helper()
	all := make(map[SocketKey]SocketPeer)
	if err := s.Sockets().Each(func(k SocketKey, v SocketPeer) bool { all[k] = v; return true }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSocketsAreReadAsTheyWerePutUntilTheyAreDeleted(t *testing.T) {
	s := newSet(t, smallSizes())
	dialled, backend := netip.MustParseAddrPort("10.96.0.10:53"), netip.MustParseAddrPort("10.0.1.7:5353")
	want := map[SocketKey]SocketPeer{
		{Cookie: 1 << 40, Addr: backend, Proto: UDP, Way: SocketBackend}: {Addr: dialled, Backend: 3, Generation: 1, Seen: 9, Netns: 7},
		{Cookie: 1 << 40, Addr: dialled, Proto: UDP, Way: SocketDialled}: {Addr: backend, Backend: 3, Generation: 1, Seen: 9, Netns: 7},
	}
	for k, v := range want {
		if err := s.Sockets().Put(k, v); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, readSockets(t, s), compareAddrs); diff != "" {
		t.Error(diff)
	}
	for k := range want {
		for range 2 { // the second time it is absent
			if err := s.Sockets().Delete(k); err != nil {
				t.Error(err)
			}
		}
	}
	if left := readSockets(t, s); len(left) != 0 {
		t.Errorf("left after deleting: %v", left)
	}
}
