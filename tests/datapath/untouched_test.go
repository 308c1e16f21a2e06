package datapath

import (
	"encoding/binary"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// What ebb does not understand it passes as it is. send compares the frames.

var allHooks = []maps.Hook{maps.HookXDP, maps.HookTCIngress, maps.HookTCEgress, maps.HookPodIngress, maps.HookPodEgress}

// Numbers of headers (IANA "Protocol Numbers", RFC 791, RFC 8200).
const (
	hopByHop     = 0
	icmp         = 1
	routing      = 43
	dccp         = 33
	fragment     = 44
	icmpv6       = 58
	noNext       = 59
	destinations = 60

	moreFragments = 0x2000
)

var padding = packet.Extension{Type: destinations, Data: [7]byte{0, 1, 4}}

// strange is one way to make a packet of a flow something else.
type strange struct {
	name    string
	family  string // empty: both
	verdict maps.Verdict
	edit    func(s *packet.Spec)
	spoil   func(s packet.Spec, frame []byte) []byte
	xdpOnly bool // TC understands more, or the kernel runs no TC program by hand on such a frame
}

// untouched are the packets of a well-known flow, but for one thing.
var untouched = []strange{
	{name: "a first fragment", family: "IPv4", verdict: maps.VerdictFragment, spoil: fragmented(moreFragments), xdpOnly: true},
	{name: "a middle fragment", family: "IPv4", verdict: maps.VerdictFragment, spoil: fragmented(moreFragments | 185)},
	{name: "a last fragment", family: "IPv4", verdict: maps.VerdictFragment, spoil: fragmented(185)},
	{name: "a first fragment", family: "IPv6", verdict: maps.VerdictFragment, edit: fragmented6(1), xdpOnly: true},
	{name: "a last fragment", family: "IPv6", verdict: maps.VerdictFragment, edit: fragmented6(185 << 3)},
	{name: "an atomic fragment", family: "IPv6", verdict: maps.VerdictFragment, edit: fragmented6(0), xdpOnly: true},
	{name: "a fragment behind options", family: "IPv6", verdict: maps.VerdictFragment, xdpOnly: true, edit: func(s *packet.Spec) {
		s.HopByHop = true
		fragmented6(1)(s)
	}},

	{name: "ICMP", family: "IPv4", verdict: maps.VerdictNotL4, spoil: protocol(icmp)},
	{name: "DCCP", family: "IPv4", verdict: maps.VerdictNotL4, spoil: protocol(dccp)},
	{name: "a fragment of ICMP", family: "IPv4", verdict: maps.VerdictNotL4, spoil: func(s packet.Spec, f []byte) []byte {
		return protocol(icmp)(s, fragmented(moreFragments)(s, f))
	}},
	{name: "ICMPv6", family: "IPv6", verdict: maps.VerdictNotL4, spoil: protocol(icmpv6)},
	{name: "no next header", family: "IPv6", verdict: maps.VerdictNotL4, spoil: protocol(noNext)},
	{name: "IPv4's ICMP", family: "IPv6", verdict: maps.VerdictNotL4, spoil: protocol(icmp)},

	{name: "five extension headers", family: "IPv6", verdict: maps.VerdictExtHeaders, edit: func(s *packet.Spec) { s.DstOptions = 5 }},
	{name: "a routing header not yet used up", family: "IPv6", verdict: maps.VerdictExtHeaders, edit: func(s *packet.Spec) {
		s.Extensions = []packet.Extension{padding, {Type: routing, Data: [7]byte{0, 4, 1}}}
	}},

	{name: "ARP", verdict: maps.VerdictNotIP, spoil: etherType(0x0806)},
	{name: "an Ethernet length", verdict: maps.VerdictNotIP, spoil: etherType(0x0040)},
	{name: "three VLAN tags", verdict: maps.VerdictNotIP, edit: func(s *packet.Spec) { s.VLANs = []uint16{1, 2, 3} }},
	{name: "ARP in a VLAN", verdict: maps.VerdictNotIP,
		edit:  func(s *packet.Spec) { s.VLANs = []uint16{1} },
		spoil: func(s packet.Spec, f []byte) []byte { binary.BigEndian.PutUint16(f[16:], 0x0806); return f }},

	{name: "no room for the IP header", verdict: maps.VerdictMalformed, spoil: cut(packet.Spec.L3, 19), xdpOnly: true},
	{name: "no room for the port numbers", verdict: maps.VerdictMalformed, spoil: cut(packet.Spec.L4, 3)},
	{name: "all but the last byte of the header", verdict: maps.VerdictMalformed, spoil: shortHeader},
	{name: "no room for the VLAN tag", verdict: maps.VerdictMalformed,
		edit:  func(s *packet.Spec) { s.VLANs = []uint16{1} },
		spoil: cut(packet.Spec.L3, -1)},
	{name: "no room for an extension header", family: "IPv6", verdict: maps.VerdictMalformed,
		edit:  func(s *packet.Spec) { s.HopByHop = true },
		spoil: cut(packet.Spec.L3, 43)},
	{name: "the other family's version", verdict: maps.VerdictMalformed, spoil: otherVersion},
	{name: "a header of 16 bytes", family: "IPv4", verdict: maps.VerdictMalformed, spoil: set(0, 0x44)},
	{name: "less in all than the header", family: "IPv4", verdict: maps.VerdictMalformed, spoil: set(3, 19)},
	{name: "no length at all", family: "IPv4", verdict: maps.VerdictMalformed, spoil: set(3, 0)},
	{name: "too little for ports", family: "IPv4", verdict: maps.VerdictMalformed, spoil: set(3, 27)},
	{name: "no payload", family: "IPv6", verdict: maps.VerdictMalformed, spoil: set(5, 0)},
	{name: "too little for ports", family: "IPv6", verdict: maps.VerdictMalformed, spoil: set(5, 7)},
	{name: "a payload shorter than its extension headers", family: "IPv6", verdict: maps.VerdictMalformed,
		edit:  func(s *packet.Spec) { s.HopByHop, s.DstOptions = true, 1 },
		spoil: set(5, 8)},
}

func fragmented(field uint16) func(packet.Spec, []byte) []byte {
	return func(s packet.Spec, f []byte) []byte {
		binary.BigEndian.PutUint16(f[s.L3()+6:], field)
		return f
	}
}

// fragmented6 takes offset and flag as they stand in the header.
func fragmented6(field uint16) func(*packet.Spec) {
	return func(s *packet.Spec) {
		e := packet.Extension{Type: fragment}
		binary.BigEndian.PutUint16(e.Data[1:], field)
		s.Extensions = append(s.Extensions, e)
	}
}

func protocol(p byte) func(packet.Spec, []byte) []byte {
	return func(s packet.Spec, f []byte) []byte {
		at := 9
		if !s.IsIPv4() {
			at = 6
		}
		f[s.L3()+at] = p
		return f
	}
}

func etherType(v uint16) func(packet.Spec, []byte) []byte {
	return func(_ packet.Spec, f []byte) []byte {
		binary.BigEndian.PutUint16(f[12:], v)
		return f
	}
}

// set changes one byte of the IP header.
func set(at int, b byte) func(packet.Spec, []byte) []byte {
	return func(s packet.Spec, f []byte) []byte {
		f[s.L3()+at] = b
		return f
	}
}

// cut ends the frame so many bytes behind the start of a header.
func cut(header func(packet.Spec) int, n int) func(packet.Spec, []byte) []byte {
	return func(s packet.Spec, f []byte) []byte { return f[:header(s)+n] }
}

func shortHeader(s packet.Spec, f []byte) []byte {
	least := map[maps.Proto]int{maps.TCP: 20, maps.UDP: 8, maps.SCTP: 16}
	return f[:s.L4()+least[s.Proto]-1]
}

func otherVersion(s packet.Spec, f []byte) []byte {
	f[s.L3()] ^= 0x40 ^ 0x60
	return f
}

func TestWhatIsNotUnderstoodPassesUntouched(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for _, u := range untouched {
		t.Run(u.name+u.family, func(t *testing.T) {
			everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
				if u.family != "" && u.family != f.name {
					return
				}
				c := newConversation(t, r, hook, f, proto, local).serve()
				c.begin()
				c.edit = u.edit
				u.check(c, hook, c.spec(f.client, f.vip, packet.ACK, "forward"))
				if local {
					hook = c.backHook()
				}
				u.check(c, hook, c.replyOf(packet.ACK, "back"))
				c.edit = nil
				c.goOn()
			})
		})
	}
}

func (u strange) check(c *conversation, hook maps.Hook, in packet.Spec) {
	c.t.Helper()
	if u.xdpOnly && hook != maps.HookXDP {
		return
	}
	b := frame(c.t, in)
	if u.spoil != nil {
		b = u.spoil(in, b)
	}
	wantOutcome(c.t, send(c.t, c.r, hook, b, rig.Context{}), rig.Pass, u.verdict)
}

// Up to four of them are looked behind.
func TestExtensionHeadersUpToTheLastThatIsParsed(t *testing.T) {
	t.Parallel()
	used := packet.Extension{Type: routing, Data: [7]byte{0, 4, 0}} // no segments left
	chains := map[string][]packet.Extension{
		"none": nil,
		"one":  {padding},
		"two":  {{Type: hopByHop, Data: padding.Data}, used},
		"four": {{Type: hopByHop, Data: padding.Data}, padding, used, padding},
	}
	r := lend(t)
	for name, chain := range chains {
		t.Run(name, func(t *testing.T) {
			everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
				if f.client.Addr().Is4() {
					return
				}
				c := newConversation(t, r, hook, f, proto, local).serve()
				c.edit = func(s *packet.Spec) { s.Extensions = chain }
				c.begin()
				c.goOn()
			})
		})
	}
}

func TestWhatIsNoServicesPassesUntouched(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		otherPort := withPort(f.vip, f.vip.Port()+1)
		type stranger struct {
			name string
			in   packet.Spec
		}
		strangers := []stranger{
			{"another port", c.spec(f.client, otherPort, opening(proto), "")},
			{"another address", c.spec(f.client, otherVIP(f), opening(proto), "")},
			{"a backend", c.spec(f.client, c.backend, opening(proto), "")},
			{"from a backend", c.spec(c.backend, f.client, packet.ACK, "")},
			{"the node", c.spec(f.client, withAddr(f.client, f.node), packet.ACK, "")},
		}
		for _, other := range protos {
			if other == proto {
				continue
			}
			its := newConversation(t, r, hook, f, other, local)
			strangers = append(strangers, stranger{"its port of " + other.String(), its.first()})
		}
		for _, s := range strangers {
			for _, h := range allHooks {
				got := send(t, r, h, frame(t, s.in), rig.Context{})
				if got.Verdict != maps.VerdictNotService {
					t.Errorf("%s at %s: %s", s.name, h, got.Verdict)
				}
			}
		}
	})
}

// A packet is translated at the device where its client is, and nowhere else.
func TestAFlowsPacketsAtTheWrongHookPassUntouched(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		for range 2 {
			first := c.spec(f.client, f.vip, opening(proto), "")
			wantOutcome(t, c.run(c.backHook(), first), rig.Pass, maps.VerdictNotService)
			c.forward(opening(proto), "")
			back, wrong := c.replyOf(packet.SYN|packet.ACK, ""), c.backHook()
			if local {
				wrong = hook
			}
			wantOutcome(t, c.run(wrong, back), rig.Pass, maps.VerdictNotService)
			c.begin()
		}
	})
}
