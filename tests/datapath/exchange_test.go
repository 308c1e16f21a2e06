package datapath

import (
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// message is a kind of ICMP message (RFC 792, RFC 1191, RFC 4443).
type message struct {
	name       string
	kind, code uint8
	rest       uint32
}

var errorsOf = map[string][]message{
	"IPv4": {
		{"host unreachable", 3, 1, 0},
		{"port unreachable", 3, 3, 0},
		{"fragmentation needed", 3, 4, 1280},
		{"administratively prohibited", 3, 13, 0},
		{"time exceeded", 11, 0, 0},
		{"reassembly time exceeded", 11, 1, 0},
		{"parameter problem", 12, 0, 9 << 24},
	},
	"IPv6": {
		{"address unreachable", 1, 3, 0},
		{"port unreachable", 1, 4, 0},
		{"packet too big", 2, 0, 1280},
		{"time exceeded", 3, 0, 0},
		{"parameter problem", 4, 1, 40},
	},
}

// tooBigOf is the error by which senders learn the MTU.
func tooBigOf(f family) message {
	if f.client.Addr().Is4() {
		return errorsOf["IPv4"][2]
	}
	return errorsOf["IPv6"][2]
}

// exchange is an error as it arrives, and as it is to leave.
type exchange struct {
	in, out packet.ICMP
	quoted  packet.Spec // in in
	known   packet.Spec // in out
	bytes   int         // of the transport header and payload quoted; 0: all
	hook    maps.Hook
	action  rig.Action
	macs    bool // are known
}

// aboutForward is an error of from about a packet of the client's, on its way
// to the backend. The client has never heard of anybody but the service.
func (c *conversation) aboutForward(m message, from netip.Addr) exchange {
	known := c.spec(c.f.client, c.f.vip, packet.ACK, "what the client said")
	quoted := known
	quoted.Src, quoted.Dst, quoted.TTL = c.reverseKey().Dst, c.backend, 60
	x := c.exchange(m, quoted, known, from, c.f.vip.Addr())
	if c.local {
		x.hook = c.backHook()
	}
	return x
}

// aboutReply is the same for a packet of the backend's, on its way to the client.
// A router near the client is nobody the network of a backend elsewhere would
// let in: that hears of it from the node.
func (c *conversation) aboutReply(m message, from netip.Addr) exchange {
	known := c.replyOf(packet.ACK, "what the backend said")
	quoted := known
	quoted.Src, quoted.Dst, quoted.TTL = c.f.vip, c.f.client, 60
	wantFrom := c.f.node
	if c.local {
		wantFrom = from
	}
	return c.exchange(m, quoted, known, from, wantFrom)
}

func (c *conversation) exchange(m message, quoted, known packet.Spec, from, wantFrom netip.Addr) exchange {
	known.TTL = quoted.TTL // it is not restored
	x := exchange{quoted: quoted, known: known, hook: c.wayIn(), action: rig.Sent}
	x.in = packet.ICMP{
		Spec: packet.Spec{
			SrcMAC: rig.GatewayMAC, DstMAC: rig.NodeMAC, VLANs: c.vlans,
			Src: netip.AddrPortFrom(from, 0), Dst: netip.AddrPortFrom(quoted.Src.Addr(), 0),
		},
		Type: m.kind, Code: m.code, Rest: m.rest,
	}
	x.out = x.in
	x.out.Src, x.out.Dst = netip.AddrPortFrom(wantFrom, 0), netip.AddrPortFrom(known.Src.Addr(), 0)
	if c.local {
		x.action, x.macs = rig.Pass, true
	} else {
		x.out.TTL = 63
	}
	return x
}

// frames builds both.
func (x exchange) frames(t *testing.T) (in, out []byte) {
	t.Helper()
	x.in.Quote, x.out.Quote = x.quote(t, x.quoted), x.quote(t, x.known)
	if sum := x.known.L4() - x.known.L3() + 8; x.known.Proto == maps.SCTP && len(x.in.Quote) > sum {
		// It stays as it is: nobody can check it without the rest of the packet.
		copy(x.out.Quote[sum:min(sum+4, len(x.out.Quote))], x.in.Quote[sum:])
	}
	return icmpFrame(t, x.in), icmpFrame(t, x.out)
}

func (x exchange) quote(t *testing.T, s packet.Spec) []byte {
	t.Helper()
	b := frame(t, s)[s.L3():]
	if x.bytes == 0 {
		return b
	}
	return b[:s.L4()-s.L3()+x.bytes]
}

func icmpFrame(t *testing.T, m packet.ICMP) []byte {
	t.Helper()
	b, err := m.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// relate sends the error, and checks what becomes of it. XDP leaves it to TC.
func (c *conversation) relate(x exchange) {
	c.t.Helper()
	in, want := x.frames(c.t)
	if x.hook == c.wayIn() && c.onXDP() {
		wantOutcome(c.t, send(c.t, c.r, c.hook, in, rig.Context{}), rig.Pass, maps.VerdictNotL4)
	}
	got := send(c.t, c.r, x.hook, in, rig.Context{})
	wantOutcome(c.t, got, x.action, maps.VerdictRelated)
	if !x.macs {
		copy(want[:12], got.Frame[:12])
	}
	if d := packet.Diff(want, got.Frame); d != "" {
		c.t.Fatalf("the error is not as it should be:\n%s", d)
	}
}

// disregard sends what is no business of ebb's.
func (c *conversation) disregard(name string, hook maps.Hook, frame []byte) {
	c.t.Helper()
	got := send(c.t, c.r, hook, frame, rig.Context{})
	if got.Verdict != maps.VerdictNotL4 {
		c.t.Errorf("%s: %s, want %s", name, got.Verdict, maps.VerdictNotL4)
	}
}

// router is an address on the way between others.
func (f family) router() netip.Addr {
	if f.client.Addr().Is4() {
		return netip.MustParseAddr("203.0.113.254")
	}
	return netip.MustParseAddr("2001:db8:113::fe")
}
