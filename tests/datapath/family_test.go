package datapath

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// In maps an IPv4 address is a v4-mapped one; on the wire the two are different.
func TestIPv6WithMappedAddressesDoesNotReachIPv4(t *testing.T) {
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if !f.node.Is4() {
			return
		}
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.forward(opening(proto), "") // so that there is a flow, too
		for name, dst := range map[string]netip.AddrPort{"both": mapped(f.vip), "source": families[1].vip} {
			in := c.spec(mapped(f.client), dst, opening(proto), "x")
			got := c.run(hook, in)
			if got.Verdict != maps.VerdictMalformed || got.Action != rig.Pass {
				t.Errorf("%s mapped: %s and %s, want pass and %s", name, got.Action, got.Verdict, maps.VerdictMalformed)
			}
			if d := packet.Diff(frame(t, in), got.Frame); d != "" {
				t.Errorf("%s mapped: the frame was touched:\n%s", name, d)
			}
		}
	})
}

func mapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

// With its header an IPv6 packet may be longer than 65535 bytes (RFC 8200, 3: the
// header is not counted).
func TestAnIPv6PayloadMayBeAsLongAsItsHeaderCanSay(t *testing.T) {
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if f.node.Is4() || !local {
			return
		}
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		in := c.spec(f.client, f.vip, packet.ACK, "x")
		b := frame(t, in)
		binary.BigEndian.PutUint16(b[in.L3()+4:], 0xffff)
		if got := send(t, r, hook, b, rig.Context{}); got.Verdict != maps.VerdictToLocal {
			t.Errorf("verdict %s, want %s", got.Verdict, maps.VerdictToLocal)
		}
	})
}
