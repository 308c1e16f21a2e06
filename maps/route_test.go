package maps

import (
	"net/netip"
	"testing"
)

func TestRouteStateComesBackAsItWasPut(t *testing.T) {
	s := newSet(t, smallSizes())
	if got, err := s.Routes().Get(); err != nil || got != (RouteState{}) {
		t.Fatalf("at first %+v, %v", got, err)
	}
	for _, want := range []RouteState{{Changed: 7, Until: 1<<32 - 1, Multipath: true}, {Changed: 8, Until: 9, BySource: true}, {Changed: 9, Until: 9, Secured: true}} {
		if err := s.Routes().Put(want); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Routes().Get(); err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
}

func TestNeighboursOfBothFamiliesComeBackAsTheyWerePut(t *testing.T) {
	s := newSet(t, smallSizes())
	want := map[NextHop]Neighbour{
		{Ifindex: 2, Addr: netip.MustParseAddr("198.51.100.1")}: {Used: 5, Probed: 3},
		{Ifindex: 3, Addr: netip.MustParseAddr("198.51.100.1")}: {Used: 6},
		{Ifindex: 2, Addr: netip.MustParseAddr("2001:db8::1")}:  {Used: 7, Probed: 7},
	}
	for h, n := range want {
		if err := s.Neighbours().Put(h, n); err != nil {
			t.Fatal(err)
		}
		if got, ok, err := s.Neighbours().Lookup(h); err != nil || !ok || got != n {
			t.Errorf("%s: got %+v, %t, %v; want %+v", h, got, ok, err, n)
		}
	}
	seen := 0
	err := s.Neighbours().Each(func(h NextHop, n Neighbour) bool {
		seen++
		if want[h] != n {
			t.Errorf("%s: got %+v, want %+v", h, n, want[h])
		}
		return true
	})
	if err != nil || seen != len(want) {
		t.Errorf("%d entries, %v; want %d", seen, err, len(want))
	}
	for h := range want {
		for range 2 { // the second has nothing to delete
			if err := s.Neighbours().Delete(h); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok, err := s.Neighbours().Lookup(h); ok || err != nil {
			t.Errorf("%s: still there: %t, %v", h, ok, err)
		}
	}
	if _, ok, err := s.Neighbours().Lookup(NextHop{}); ok || err != nil {
		t.Errorf("no address: %t, %v", ok, err)
	}
}
