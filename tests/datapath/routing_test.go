package datapath

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// To a remote backend ebb is the router. The ways there are rig.World's.

// Third octet, or fourth group, of the networks of rig.World.
const (
	narrowNet     = "3" // small MTU
	unknownNet    = "4" // the neighbour is not known
	prohibitedNet = "5"
	secondNet     = "6" // by the second device

	unreachableNet = "7"
	blackholeNet   = "8"
)

// in moves the remote backend of the cast to another network.
func (f family) in(network string) family {
	addr := strings.Replace(f.remote.Addr().String(), "244.2.", "244."+network+".", 1)
	addr = strings.Replace(addr, "244:2:", "244:"+network+":", 1)
	f.remote = withAddr(f.remote, netip.MustParseAddr(addr))
	if network == secondNet {
		f.node = rig.Second4
		if f.client.Addr().Is6() {
			f.node = rig.Second6
		}
	}
	return f
}

// everyRemote is everyCase for remote backends in a network, the service set up.
func everyRemote(t *testing.T, r *rig.Rig, network string, fn func(c *conversation)) {
	t.Helper()
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if local {
			return
		}
		if network != "" {
			f = f.in(network)
		}
		fn(newConversation(t, r, hook, f, proto, false).serve())
	})
}

// first is the client's first packet.
func (c *conversation) first() packet.Spec {
	return c.spec(c.f.client, c.f.vip, opening(c.proto), "")
}

func (c *conversation) onXDP() bool { return c.hook == maps.HookXDP }

func TestRoutingTakesOneHopOffTheTTL(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, "", func(c *conversation) {
		c.begin()
		for _, ttl := range []uint8{2, 64, 128, 255} {
			c.edit = func(s *packet.Spec) { s.TTL = ttl }
			c.forward(packet.ACK, "x")
			c.reply(packet.ACK, "y")
		}
	})
}

// The stack routes it there, and takes it off itself.
func TestWhatGoesToALocalBackendKeepsItsTTL(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if !local {
			return
		}
		c := newConversation(t, r, hook, f, proto, true).serve()
		c.edit = func(s *packet.Spec) { s.TTL = 1 }
		c.begin()
		c.goOn()
	})
}

func TestAPacketWhoseTTLRunsOutIsAnswered(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, "", func(c *conversation) {
		for _, ttl := range []uint8{1, 0} {
			first := c.first()
			c.wantAnswer(expire(first, ttl), maps.VerdictTTLExpired, packet.TimeExceeded)
			c.begin()
			c.wantAnswer(expire(c.spec(c.f.client, c.f.vip, packet.ACK, "data of some length"), ttl), maps.VerdictTTLExpired, packet.TimeExceeded)
			c.wantAnswer(expire(c.replyOf(packet.ACK, "data of some length"), ttl), maps.VerdictTTLExpired, packet.TimeExceeded)
		}
		c.goOn()
	})
}

// expire returns the frame of s with a TTL of its own. In packet.Spec 0 is the default.
func expire(s packet.Spec, ttl uint8) func(t *testing.T) []byte {
	return func(t *testing.T) []byte {
		t.Helper()
		s.TTL = 1
		b := frame(t, s)
		if ttl == 1 {
			return b
		}
		if !s.IsIPv4() {
			b[s.L3()+7] = ttl
			return b
		}
		b[s.L3()+8] = ttl
		b[s.L3()+10]++ // one less in the word above is one more in the sum
		return b
	}
}

func plain(s packet.Spec) func(t *testing.T) []byte {
	return func(t *testing.T) []byte { t.Helper(); return frame(t, s) }
}

// wantAnswer checks that TC answers a packet with an ICMP error, which leaves by
// the device the packet came from, and that XDP leaves the packet to it.
func (c *conversation) wantAnswer(make func(*testing.T) []byte, verdict maps.Verdict, answer func([]byte) ([]byte, error)) {
	c.t.Helper()
	in := make(c.t)
	got := send(c.t, c.r, c.hook, in, rig.Context{})
	if c.onXDP() {
		wantOutcome(c.t, got, rig.Pass, maps.VerdictLeftToTC)
		return
	}
	wantOutcome(c.t, got, rig.Sent, verdict)
	want, err := answer(in)
	if err != nil {
		c.t.Fatal(err)
	}
	if d := packet.Diff(want, got.Frame); d != "" {
		c.t.Fatalf("the answer is not as it should be:\n%s", d)
	}
}

func TestAPacketWithOptionsWhoseTTLRunsOutIsAnswered(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, "", func(c *conversation) {
		in := c.first()
		in.TTL = 1
		in.IPOptions, in.HopByHop = []byte{7, 8, 4, 0, 0, 0, 0, 0}, true
		c.wantAnswer(plain(in), maps.VerdictTTLExpired, packet.TimeExceeded)
		in.VLANs = []uint16{rig.VLAN}
		c.wantAnswer(plain(in), maps.VerdictTTLExpired, packet.TimeExceeded)
		in.IPOptions, in.HopByHop = nil, false
		c.wantAnswer(plain(in), maps.VerdictTTLExpired, packet.TimeExceeded)
	})
}

func TestAPacketTooBigForTheWayIsAnswered(t *testing.T) {
	t.Parallel()
	tooBig := func(frame []byte) ([]byte, error) { return packet.TooBig(frame, rig.SmallMTU) }
	r := lend(t)
	everyRemote(t, r, narrowNet, func(c *conversation) {
		in := c.first() // nothing is known of the route yet
		in.Payload = c.fill(in, rig.SmallMTU+1)
		c.wantAnswer(plain(in), maps.VerdictTooBig, tooBig)
		c.begin()
		in = c.spec(c.f.client, c.f.vip, packet.ACK, "")
		for range 2 {
			in.Payload = c.fill(in, rig.SmallMTU)
			c.forwardSpec(in)
			in.Payload = c.fill(in, rig.SmallMTU+1)
			c.wantAnswer(plain(in), maps.VerdictTooBig, tooBig)
		}
	})
}

// fill is the payload that makes a packet like s so many bytes long.
func (c *conversation) fill(s packet.Spec, bytes int) []byte {
	c.t.Helper()
	s.Payload = make([]byte, 100) // a frame is filled up to 60
	return make([]byte, bytes-(len(frame(c.t, s))-s.L3()-len(s.Payload)))
}

// A packet that stands for several is rewritten once, and each of the several
// has to fit.
func TestAGSOPacketIsRewrittenOnceAndJudgedByItsSegments(t *testing.T) {
	t.Parallel()
	const segments = 2
	r := lend(t)
	everyRemote(t, r, narrowNet, func(c *conversation) {
		if c.onXDP() || c.proto == maps.SCTP {
			return // never sees one; has segments of any size
		}
		c.begin()
		in := c.spec(c.f.client, c.f.vip, packet.ACK, "")
		fits := len(c.fill(in, rig.SmallMTU))
		in.Payload = make([]byte, segments*fits)
		ctx := rig.Context{GSOSize: uint32(fits), GSOCount: segments}
		got := c.runWith(c.hook, in, ctx)
		want := in
		want.Src, want.Dst, want.TTL = c.reverseKey().Dst, c.backend, routedTTL(in)
		c.check(got, want, rig.Sent, maps.VerdictToRemote)

		ctx.GSOSize++
		got = c.runWith(c.hook, in, ctx)
		wantOutcome(c.t, got, rig.Sent, maps.VerdictTooBig)
		answer, err := packet.TooBig(frame(c.t, in), rig.SmallMTU)
		if err != nil {
			c.t.Fatal(err)
		}
		if d := packet.Diff(answer, got.Frame); d != "" {
			c.t.Error(d)
		}
	})
}

// And so is one to or from a local backend, whatever its size.
func TestAGSOPacketOfALocalBackendIsRewrittenOnce(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if !local || hook == maps.HookXDP {
			return
		}
		c := newConversation(t, r, hook, f, proto, true).serve()
		c.begin()
		ctx := rig.Context{GSOSize: 1400, GSOCount: 2}
		in := c.spec(f.client, f.vip, packet.ACK, strings.Repeat("x", 2800))
		want := in
		want.Dst = c.backend
		c.check(c.runWith(hook, in, ctx), want, rig.Pass, maps.VerdictToLocal)
		in = c.replyOf(packet.ACK, strings.Repeat("y", 2800))
		want = in
		want.Src = f.vip
		c.check(c.runWith(c.backHook(), in, ctx), want, rig.Pass, maps.VerdictReplyLocal)
	})
}

// XDP sees the first page of one; checksums are corrected, not computed.
func TestAJumboFrameIsTranslatedAsAWhole(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if hook != maps.HookXDP {
			return // see GSO
		}
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		in := c.spec(f.client, f.vip, packet.ACK, strings.Repeat("x", 8800))
		if local {
			c.forwardSpec(in)
			return
		}
		wantOutcome(t, c.run(hook, in), rig.Pass, maps.VerdictLeftToTC) // the uplink's MTU is 1500
	})
}

// TC sends it by the kernel's neighbour code, which asks around.
func TestWithANeighbourNobodyKnowsThePacketGoesTheSlowWay(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, unknownNet, func(c *conversation) {
		if c.onXDP() {
			for range 2 {
				wantOutcome(c.t, c.run(c.hook, c.first()), rig.Pass, maps.VerdictLeftToTC)
			}
			return
		}
		c.begin()
		for range 2 {
			c.forward(packet.ACK, "x")
		}
	})
}

// As the kernel does (RFC 1812, 4.3.3.1 and 5.2.7.1; RFC 4443, 3.1).
func TestWithoutARouteTheSenderIsTold(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for network, code := range map[string][2]uint8{
		prohibitedNet:  {13, 1},
		unreachableNet: {1, 0},
	} {
		everyRemote(t, r, network, func(c *conversation) {
			for range 2 {
				c.wantAnswer(plain(c.first()), maps.VerdictNoRoute, func(frame []byte) ([]byte, error) {
					return packet.Unreachable(frame, code[0], code[1])
				})
			}
		})
	}
}

func TestABlackHoleTellsNobody(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, blackholeNet, func(c *conversation) {
		if !c.onXDP() {
			wantOutcome(c.t, c.run(c.hook, c.first()), rig.Drop, maps.VerdictNoRoute)
		}
	})
}

// The kernel gives up after three seconds; it is asked again now and then.
func TestTheSenderIsToldThatTheNeighbourIsDead(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, unknownNet, func(c *conversation) {
		if c.onXDP() {
			return
		}
		dead := func() {
			c.t.Helper()
			c.wantAnswer(plain(c.first()), maps.VerdictNoRoute, func(frame []byte) ([]byte, error) {
				return packet.Unreachable(frame, 1, 3)
			})
		}
		sent := func() {
			c.t.Helper()
			wantOutcome(c.t, c.run(c.hook, c.first()), rig.Sent, maps.VerdictToRemote)
		}
		c.r.Reset(c.t)
		c.serve()
		sent()
		c.r.AgeUnresolved(c.t, 1, false)
		sent()
		c.r.AgeUnresolved(c.t, 2, false)
		dead()
		dead()
		c.r.AgeUnresolved(c.t, 4, true)
		sent()
		dead()
		c.r.AgeUnresolved(c.t, 17, true) // nobody has sent there for so long
		sent()
		sent()
	})
}

// A node of one family cannot be the source of the other's flows.
func TestWithoutANodeAddressOfItsFamilyAPacketHasNoRoute(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		other, uplink := maps.Runtime{SNAT4: rig.Node4}, maps.Device{Away: true, SNAT4: rig.Node4}
		if f.client.Addr().Is4() {
			other, uplink = maps.Runtime{SNAT6: rig.Node6}, maps.Device{Away: true, SNAT6: rig.Node6}
		}
		if err := errors.Join(r.Set.Runtime().Put(other), r.Set.Devices().Put(r.World.Uplink, uplink)); err != nil {
			t.Fatal(err)
		}
		if !local {
			c.wantVerdict(opening(proto), rig.Drop, maps.VerdictNoRoute)
			return
		}
		c.begin() // needs none
		c.goOn()
	})
}

// A client that lives on the node, behind another of its addresses.
func TestAReplyToTheNodeItselfGoesUpTheStack(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, "", func(c *conversation) {
		client := rig.Second4
		if c.f.client.Addr().Is6() {
			client = rig.Second6
		}
		// It has just got the address: programs do not know it yet.
		if err := r.Set.Addresses(maps.NodeAddress).Delete(client); err != nil {
			c.t.Fatal(err)
		}
		c.f.client = withAddr(c.f.client, client)
		c.forward(opening(c.proto), "")
		in := c.replyOf(packet.SYN|packet.ACK, "")
		got := c.run(c.hook, in)
		if c.onXDP() {
			wantOutcome(c.t, got, rig.Pass, maps.VerdictLeftToTC)
			return
		}
		want := in
		want.Src, want.Dst, want.TTL = c.f.vip, c.f.client, routedTTL(in)
		c.check(got, want, rig.Pass, maps.VerdictReplyRemote)
	})
}
