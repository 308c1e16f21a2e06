package service

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func prefixes(texts string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range strings.Fields(texts) {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

func TestSourceRanges(t *testing.T) {
	tests := []struct {
		name, ranges           string
		v4, v6                 string
		restricted4, restrict6 bool
	}{
		{"without a list any client may come", "", "", "", false, false},
		{"each family has its own ranges", "10.0.0.0/8 2001:db8::/32", "10.0.0.0/8", "2001:db8::/32", true, true},
		{"ranges of the other family only: nobody of this one", "10.0.0.0/8", "10.0.0.0/8", "", true, true},
		{"everybody of a family opens that family", "10.0.0.0/8 0.0.0.0/0 2001:db8::/32", "", "2001:db8::/32", false, true},
		{"everybody of the other family does not open this one", "::/0 10.0.0.0/8", "10.0.0.0/8", "", true, false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s := &Service{LoadBalancerSourceRanges: prefixes(tc.ranges)}
			got4, restricted4 := s.SourceRanges(true)
			got6, restricted6 := s.SourceRanges(false)
			if !slices.Equal(got4, prefixes(tc.v4)) || restricted4 != tc.restricted4 {
				t.Errorf("IPv4: %v, restricted %v", got4, restricted4)
			}
			if !slices.Equal(got6, prefixes(tc.v6)) || restricted6 != tc.restrict6 {
				t.Errorf("IPv6: %v, restricted %v", got6, restricted6)
			}
		})
	}
}

func TestARangeNobodyUnderstandsOpensNothing(t *testing.T) {
	s := &Service{LoadBalancerSourceRanges: []netip.Prefix{{}}}
	for _, v4 := range []bool{true, false} {
		if ranges, restricted := s.SourceRanges(v4); len(ranges) != 0 || !restricted {
			t.Errorf("v4 %v: %v, restricted %v", v4, ranges, restricted)
		}
	}
}
