package datapath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// family is one address family's cast.
type family struct {
	name          string
	client        netip.AddrPort
	vip           netip.AddrPort
	local, remote netip.AddrPort
	node          netip.Addr
}

var families = []family{
	{
		name:   "IPv4",
		client: netip.MustParseAddrPort("192.0.2.10:40001"),
		vip:    netip.MustParseAddrPort("203.0.113.10:80"),
		local:  netip.MustParseAddrPort("10.244.1.7:8080"),
		remote: netip.MustParseAddrPort("10.244.2.7:8080"),
		node:   rig.Node4,
	},
	{
		name:   "IPv6",
		client: netip.MustParseAddrPort("[2001:db8:2::10]:40001"),
		vip:    netip.MustParseAddrPort("[2001:db8:113::10]:80"),
		local:  netip.MustParseAddrPort("[fd00:244:1::7]:8080"),
		remote: netip.MustParseAddrPort("[fd00:244:2::7]:8080"),
		node:   rig.Node6,
	},
}

var ingressHooks = []maps.Hook{maps.HookXDP, maps.HookTCIngress}

func (f family) frontend(proto maps.Proto) maps.Frontend {
	return maps.Frontend{Addr: f.vip.Addr(), Port: f.vip.Port(), Proto: proto}
}

// conversation is one client talking to one service through one hook. It
// keeps the source port a remote flow was given, and both sides' numbers.
type conversation struct {
	t       *testing.T
	r       *rig.Rig
	hook    maps.Hook
	f       family
	proto   maps.Proto
	backend netip.AddrPort
	local   bool
	snat    uint16 // remote: learned from the first packet
	vlans   []uint16
	edit    func(*packet.Spec) // applied to what is sent

	// exactMACs is off while TC leaves them to the kernel's neighbour code.
	ignoreMACs bool
}

func newConversation(t *testing.T, r *rig.Rig, hook maps.Hook, f family, proto maps.Proto, local bool) *conversation {
	c := &conversation{t: t, r: r, hook: hook, f: f, proto: proto, local: local, backend: f.remote}
	if local {
		c.backend = f.local
	}
	c.ignoreMACs = hook == maps.HookTCIngress
	return c
}

// serve makes the conversation's service exist with its one backend.
func (c *conversation) serve() *conversation {
	c.t.Helper()
	c.r.AddService(c.t, c.f.frontend(c.proto), rig.Backend(c.backend.String(), c.local))
	return c
}

func (c *conversation) spec(src, dst netip.AddrPort, flags packet.Flags, payload string) packet.Spec {
	s := packet.Spec{
		SrcMAC: rig.GatewayMAC, DstMAC: rig.NodeMAC, VLANs: c.vlans,
		Src: src, Dst: dst, Proto: c.proto, Flags: flags, Payload: []byte(payload),
		Seq: 1000, Ack: 2000,
	}
	if c.edit != nil {
		c.edit(&s)
	}
	return s
}

// forward sends a packet of the client and checks what becomes of it.
func (c *conversation) forward(flags packet.Flags, payload string) {
	c.t.Helper()
	in := c.spec(c.f.client, c.f.vip, flags, payload)
	c.forwardSpec(in)
}

func (c *conversation) forwardSpec(in packet.Spec) {
	c.t.Helper()
	got := c.run(c.hook, in)
	want := in
	want.Dst = c.backend
	if c.local {
		c.check(got, want, rig.Pass, maps.VerdictToLocal)
		return
	}
	if c.snat == 0 {
		c.snat = sourcePort(c.t, got.Frame, in)
	}
	want.Src = netip.AddrPortFrom(c.f.node, c.snat)
	want.TTL = 63
	want.SrcMAC, want.DstMAC = rig.NodeMAC, rig.OtherMAC
	c.check(got, want, rig.Sent, maps.VerdictToRemote)
}

// reply sends a packet of the backend and checks what the client gets.
func (c *conversation) reply(flags packet.Flags, payload string) {
	c.t.Helper()
	if c.local {
		in := c.spec(c.backend, c.f.client, flags, payload)
		want := in
		want.Src = c.f.vip
		got := c.run(maps.HookTCEgress, in)
		c.checkMACs(got, want, rig.Pass, maps.VerdictReplyLocal, true)
		return
	}
	in := c.spec(c.backend, netip.AddrPortFrom(c.f.node, c.snat), flags, payload)
	want := in
	want.Src, want.Dst, want.TTL = c.f.vip, c.f.client, 63
	want.SrcMAC, want.DstMAC = rig.NodeMAC, rig.GatewayMAC
	c.check(c.run(c.hook, in), want, rig.Sent, maps.VerdictReplyRemote)
}

func (c *conversation) handshake() {
	c.t.Helper()
	c.forward(packet.SYN, "")
	c.reply(packet.SYN|packet.ACK, "")
	c.forward(packet.ACK, "")
}

func (c *conversation) run(hook maps.Hook, in packet.Spec) rig.Result {
	c.t.Helper()
	return c.r.Run(c.t, hook, frame(c.t, in))
}

func (c *conversation) check(got rig.Result, want packet.Spec, action rig.Action, verdict maps.Verdict) {
	c.t.Helper()
	c.checkMACs(got, want, action, verdict, !c.ignoreMACs || action == rig.Pass)
}

func (c *conversation) checkMACs(got rig.Result, want packet.Spec, action rig.Action, verdict maps.Verdict, macs bool) {
	c.t.Helper()
	if got.Verdict != verdict || got.Action != action {
		c.t.Fatalf("got %s and %s, want %s and %s", got.Action, got.Verdict, action, verdict)
	}
	w := frame(c.t, want)
	if !macs {
		copy(w[:12], got.Frame[:12])
	}
	if d := packet.Diff(w, got.Frame); d != "" {
		c.t.Fatalf("the frame is not as it should be:\n%s", d)
	}
}

func frame(tb testing.TB, s packet.Spec) []byte {
	tb.Helper()
	b, err := s.Bytes()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// sourcePort reads the source port of a translated frame laid out like in.
func sourcePort(t *testing.T, got []byte, in packet.Spec) uint16 {
	t.Helper()
	at := bytes.Index(frame(t, in), binary.BigEndian.AppendUint16(nil, in.Src.Port()))
	port := binary.BigEndian.Uint16(got[at:])
	if port < 1024 || port > 29999 {
		t.Fatalf("source port %d is outside the range", port)
	}
	return port
}
