package service

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestNodePortAddrs(t *testing.T) {
	node := []netip.Addr{
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1"),
		netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:1::1"),
	}
	for _, tc := range []struct {
		name   string
		choice NodePortAddrs
		want   []netip.Addr
	}{
		{"the first of each family unless something else is said", NodePortAddrs{}, []netip.Addr{node[0], node[2]}},
		{"all", NodePortAddrs{All: true}, node},
		{"those in ranges of both families", NodePortAddrs{CIDRs: prefixes("198.51.100.0/24 2001:db8:1::/64")},
			[]netip.Addr{node[1], node[3]}},
		{"without a range of its family, all of a family", NodePortAddrs{CIDRs: prefixes("198.51.100.0/24")},
			[]netip.Addr{node[1], node[2], node[3]}},
		{"none, if the ranges have none", NodePortAddrs{CIDRs: prefixes("10.0.0.0/8 fd00::/8")}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.choice.Of(node); fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("node ports on %v, want %v", got, tc.want)
			}
			if got := tc.choice.Of(nil); len(got) > 0 {
				t.Errorf("node ports on %v of a node without addresses", got)
			}
		})
	}
}
