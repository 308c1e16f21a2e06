package maps

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWritersOfAnAddressLeaveEachOthersFlags(t *testing.T) {
	s := newSet(t, smallSizes())
	services, node := s.Addresses(ServiceAddress), s.Addresses(NodeAddress)
	tests := []struct {
		name string
		do   func() error
		want AddressFlags
	}{
		{"a Service comes", func() error { return services.Put(both, ServiceAddress) }, ServiceAddress},
		{"the node gets the address", func() error { return node.Put(both, AddressNode) }, ServiceAddress | AddressNode},
		{"it is a ClusterIP only", func() error { return services.Put(both, AddressClusterIP) }, AddressClusterIP | AddressNode},
		{"the Service goes", func() error { return services.Delete(both) }, AddressNode},
		{"... again", func() error { return services.Delete(both) }, AddressNode},
		{"the node loses it", func() error { return node.Put(both, 0) }, 0},
	}
	for _, tc := range tests {
		if err := tc.do(); err != nil {
			t.Fatal(tc.name, err)
		}
		want := map[netip.Addr]AddressFlags{}
		if tc.want != 0 {
			want[both] = tc.want
		}
		got, err := s.Addresses(ServiceAddress | NodeAddress).All()
		if diff := cmp.Diff(want, got, compareAddrs); err != nil || diff != "" {
			t.Errorf("%s: error %v\n%s", tc.name, err, diff)
		}
	}
}

func TestWritersOfOneAddressAtTheSameTimeLoseNothing(t *testing.T) {
	s := newSet(t, smallSizes())
	var writers sync.WaitGroup
	errs := make([]error, 2)
	for i, own := range []AddressFlags{AddressExternal, AddressNode} {
		writers.Go(func() {
			for range 2000 {
				errs[i] = errors.Join(errs[i], s.Addresses(own).Delete(both), s.Addresses(own).Put(both, own))
			}
		})
	}
	writers.Wait()
	got, err := s.Addresses(ServiceAddress | NodeAddress).All()
	if err := errors.Join(err, errs[0], errs[1]); err != nil {
		t.Fatal(err)
	}
	if got[both] != AddressExternal|AddressNode {
		t.Errorf("%s has %s", both, got[both])
	}
}

func TestFlagsOfOthersAreRefused(t *testing.T) {
	s := newSet(t, smallSizes())
	err := s.Addresses(NodeAddress).Put(both, AddressNode|AddressClusterIP)
	if err == nil || !strings.Contains(err.Error(), both.String()) {
		t.Errorf("error is %v", err)
	}
}

func TestThereIsRoomForTheAddressOfEveryFrontend(t *testing.T) {
	s := newSet(t, smallSizes())
	addrs := s.Addresses(NodeAddress)
	a, n := netip.MustParseAddr("192.0.2.0"), 0
	for ; n < 1<<16; n++ {
		if err := addrs.Put(a, AddressNode); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			break
		}
		a = a.Next()
	}
	if want := int(smallSizes().Frontends) + nodeAddresses; n != want {
		t.Errorf("room for %d addresses, want %d", n, want)
	}
}
