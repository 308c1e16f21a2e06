package datapath

import (
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

// What both sides of a conversation number their segments with, once the SYN
// of each has taken the number before: each acknowledges what the other sends.
const (
	clientSeq  = 1000
	backendSeq = 2000
)

// The tags of SCTP: each side puts into its packets the one the other has chosen.
const (
	clientTag  = 0xc11e47
	backendTag = 0xbac0e4d
)

// associate gives s what stands in an association where a TCP segment has flags.
func associate(s *packet.Spec, flags packet.Flags, toBackend bool) {
	s.Flags, s.Tag, s.InitTag = 0, clientTag, backendTag
	if toBackend {
		s.Tag, s.InitTag = backendTag, clientTag
	}
	switch {
	case flags&packet.RST != 0:
		s.Chunk = packet.Abort
	case flags&packet.SYN != 0 && flags&packet.ACK != 0:
		s.Chunk = packet.InitAck
	case flags&packet.SYN != 0:
		s.Chunk, s.Tag = packet.Init, 0
	case flags&packet.FIN != 0:
		s.Chunk = packet.Shutdown
	case len(s.Payload) == 0 && toBackend:
		s.Chunk = packet.CookieEcho
	case len(s.Payload) == 0:
		s.Chunk = packet.CookieAck
	}
}

// otherVIP is a second service address of the cast.
func otherVIP(f family) netip.AddrPort {
	return withAddr(f.vip, f.vip.Addr().Next())
}

func withAddr(a netip.AddrPort, addr netip.Addr) netip.AddrPort {
	return netip.AddrPortFrom(addr, a.Port())
}

func withPort(a netip.AddrPort, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), port)
}

// conversation is one client talking to one service through one hook. It
// keeps the source port a remote flow was given.
type conversation struct {
	t       *testing.T
	r       *rig.Rig
	hook    maps.Hook
	f       family
	proto   maps.Proto
	backend netip.AddrPort
	local   bool
	id      maps.BackendID     // of backend, once it is served
	base    maps.BackendCounts // what its index had done by then
	snat    uint16             // remote: learned from the first packet
	lent    uint16             // local: learned by learn; 0: the client's own port
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
	return c.serveWith(rig.Backend(c.backend.String(), c.local))
}

// serveWith is serve with backends of the caller's, the conversation's first.
func (c *conversation) serveWith(backends ...maps.Backend) *conversation {
	c.t.Helper()
	_, c.id = c.r.AddService(c.t, c.f.frontend(c.proto), backends...)
	c.base = maps.BackendCounts{}
	c.base = c.counts()
	return c
}

func (c *conversation) spec(src, dst netip.AddrPort, flags packet.Flags, payload string) packet.Spec {
	s := packet.Spec{
		SrcMAC: rig.GatewayMAC, DstMAC: rig.NodeMAC, VLANs: c.vlans,
		Src: src, Dst: dst, Proto: c.proto, Flags: flags, Payload: []byte(payload),
		Seq: clientSeq, Ack: backendSeq,
	}
	if src == c.backend {
		s.Seq, s.Ack = s.Ack, s.Seq
	}
	if flags&packet.SYN != 0 {
		s.Seq--
	}
	if flags&packet.ACK == 0 {
		s.Ack = 0
	}
	if c.proto == maps.SCTP {
		associate(&s, flags, src != c.backend)
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
		want.Src = c.source()
		c.check(got, want, rig.Pass, maps.VerdictToLocal)
		return
	}
	if c.snat == 0 {
		c.snat = sourcePort(c.t, got.Frame, in)
	}
	want.Src = netip.AddrPortFrom(c.f.node, c.snat)
	want.TTL = routedTTL(in)
	want.SrcMAC, want.DstMAC = rig.NodeMAC, rig.OtherMAC
	c.check(got, want, rig.Sent, maps.VerdictToRemote)
}

// reply sends a packet of the backend and checks what the client gets.
func (c *conversation) reply(flags packet.Flags, payload string) {
	c.t.Helper()
	c.replySpec(c.replyOf(flags, payload))
}

// replyOf is a packet of the backend as it leaves it.
func (c *conversation) replyOf(flags packet.Flags, payload string) packet.Spec {
	return c.spec(c.backend, c.source(), flags, payload)
}

// source is where the backend sees the client.
func (c *conversation) source() netip.AddrPort {
	switch {
	case !c.local:
		return netip.AddrPortFrom(c.f.node, c.snat)
	case c.lent != 0:
		return withPort(c.f.client, c.lent)
	}
	return c.f.client
}

// learn sends the first packet of a flow to a backend on this node that may get a
// source port other than the client's.
func (c *conversation) learn() {
	c.t.Helper()
	in := c.first()
	got := c.run(c.hook, in)
	wantOutcome(c.t, got, rig.Pass, maps.VerdictToLocal)
	c.lent = binary.BigEndian.Uint16(got.Frame[in.L4():])
}

func (c *conversation) replySpec(in packet.Spec) {
	c.t.Helper()
	want := in
	want.Src = c.f.vip
	if c.local {
		want.Dst = c.f.client
		got := c.run(c.backHook(), in)
		c.checkMACs(got, want, rig.Pass, maps.VerdictReplyLocal, true)
		return
	}
	want.Dst, want.TTL = c.f.client, routedTTL(in)
	want.SrcMAC, want.DstMAC = rig.NodeMAC, rig.GatewayMAC
	c.check(c.run(c.hook, in), want, rig.Sent, maps.VerdictReplyRemote)
}

// wayIn is where TC translates what the client sends.
func (c *conversation) wayIn() maps.Hook {
	if c.hook == maps.HookPodIngress {
		return maps.HookPodIngress
	}
	return maps.HookTCIngress
}

// backHook is where replies of a backend on this node are translated.
func (c *conversation) backHook() maps.Hook {
	if c.hook == maps.HookPodIngress {
		return maps.HookPodEgress
	}
	return maps.HookTCEgress
}

// routedTTL is the TTL of in one hop further on.
func routedTTL(in packet.Spec) uint8 {
	if in.TTL == 0 {
		return 63
	}
	return in.TTL - 1
}

func (c *conversation) handshake() {
	c.t.Helper()
	c.forward(packet.SYN, "")
	c.reply(packet.SYN|packet.ACK, "")
	c.forward(packet.ACK, "")
}

func (c *conversation) run(hook maps.Hook, in packet.Spec) rig.Result {
	c.t.Helper()
	return c.runWith(hook, in, rig.Context{})
}

func (c *conversation) runWith(hook maps.Hook, in packet.Spec, ctx rig.Context) rig.Result {
	c.t.Helper()
	return send(c.t, c.r, hook, frame(c.t, in), ctx)
}

func tick(tb testing.TB, r *rig.Rig) uint32 {
	tb.Helper()
	now, err := r.Clock.Now()
	if err != nil {
		tb.Fatal(err)
	}
	return now
}

// send puts a frame through a hook and checks what holds for every packet:
// what is passed untouched is as it was.
func send(tb testing.TB, r *rig.Rig, hook maps.Hook, in []byte, ctx rig.Context) rig.Result {
	tb.Helper()
	got := r.RunWith(tb, hook, in, ctx)
	if got.Verdict >= maps.VerdictToLocal && got.Verdict != maps.VerdictNotOurs {
		return got
	}
	if got.Action != rig.Pass {
		tb.Fatalf("%s: %s, want pass", got.Verdict, got.Action)
	}
	if d := packet.Diff(in, got.Frame); d != "" {
		tb.Fatalf("%s, but the frame was changed:\n%s", got.Verdict, d)
	}
	return got
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
	port := binary.BigEndian.Uint16(got[in.L4():])
	if port < 1024 || port > 29999 {
		t.Fatalf("source port %d is outside the range", port)
	}
	return port
}
