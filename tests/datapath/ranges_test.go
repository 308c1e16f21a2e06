package datapath

import (
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// allow lets clients of these ranges use the conversation's service only.
func (c *conversation) allow(ranges ...netip.Prefix) {
	c.t.Helper()
	var id maps.ServicePortID
	c.putService(func(s *maps.Service) { s.Restricted, id = true, s.ServicePort })
	for _, p := range ranges {
		if err := c.r.Set.SourceRanges().Put(maps.SourceRange{ServicePort: id, Prefix: p}); err != nil {
			c.t.Fatal(err)
		}
	}
}

// around is the range of that many bits that has a in it.
func around(a netip.Addr, bits int) netip.Prefix { return netip.PrefixFrom(a, bits).Masked() }

func TestOnlyClientsInASourceRangeBegin(t *testing.T) {
	t.Parallel()
	r := lend(t)
	tests := []struct {
		name   string
		ranges func(client netip.Addr) []netip.Prefix
		in     bool
	}{
		{"its network", func(a netip.Addr) []netip.Prefix { return []netip.Prefix{around(a, 24)} }, true},
		{"itself", func(a netip.Addr) []netip.Prefix { return []netip.Prefix{around(a, a.BitLen())} }, true},
		{"one of several", func(a netip.Addr) []netip.Prefix {
			return []netip.Prefix{around(a.Next(), a.BitLen()), around(a, 20)}
		}, true},
		{"its neighbour", func(a netip.Addr) []netip.Prefix { return []netip.Prefix{around(a.Next(), a.BitLen())} }, false},
		{"the other family", func(a netip.Addr) []netip.Prefix {
			if a.Is4() {
				return []netip.Prefix{netip.MustParsePrefix("::/1"), netip.MustParsePrefix("8000::/1")}
			}
			return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1")}
		}, false},
		{"none", func(netip.Addr) []netip.Prefix { return nil }, false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
				c := newConversation(t, r, hook, f, proto, local).serve()
				c.allow(tc.ranges(f.client.Addr())...)
				if tc.in {
					c.begin()
					c.goOn()
					return
				}
				c.wantVerdict(opening(proto), rig.Drop, maps.VerdictSourceRange)
				c.wantNoForwardEntry()
			})
		})
	}
}

func TestRangesOfOneServicePortAreNotThoseOfAnother(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		other := newConversation(t, r, hook, withVIPPort(f, 81), proto, local).serve()
		other.allow(around(f.client.Addr(), 24))
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.allow()
		c.wantVerdict(opening(proto), rig.Drop, maps.VerdictSourceRange)
	})
}

func withVIPPort(f family, port uint16) family {
	f.vip = netip.AddrPortFrom(f.vip.Addr(), port)
	return f
}

func TestNewRangesDoNotEndWhatHasBegun(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyTCPCase(t, r, func(t *testing.T, hook maps.Hook, f family, local bool) {
		c := newConversation(t, r, hook, f, maps.TCP, local).serve()
		c.begin()
		c.allow()
		c.goOn()
		c.evict(c.forwardKey())
		c.forward(packet.ACK, "its forward half is restored")
		c.goOn()
	})
}

func TestARestrictedServiceTakesNobodyOverMidway(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyTCPCase(t, r, func(t *testing.T, hook maps.Hook, f family, local bool) {
		c := newConversation(t, r, hook, f, maps.TCP, local).serve()
		c.allow()
		c.wantVerdict(packet.ACK, rig.Drop, maps.VerdictSourceRange)
	})
}
