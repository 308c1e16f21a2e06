package datapath

import (
	"net"
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Frames that are not for this node, and sources that cannot be clients.

// strangers are stations other than this node.
var strangers = map[string]net.HardwareAddr{
	"another host": rig.OtherMAC,
	"everybody":    {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	"a group":      {1, 0, 0x5e, 0, 0, 1},
}

// everyUplink is everyCase without pods' links: there is nobody else on them.
func everyUplink(t *testing.T, r *rig.Rig, fn func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool)) {
	t.Helper()
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if hook != maps.HookPodIngress {
			fn(t, hook, f, proto, local)
		}
	})
}

// everyStranger runs fn for every case and each edit that makes a frame another's.
func everyStranger(t *testing.T, r *rig.Rig, fn func(c *conversation, lost func(*packet.Spec))) {
	t.Helper()
	everyUplink(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		for name, mac := range strangers {
			t.Run("to "+name, func(t *testing.T) {
				r.Reset(t)
				fn(newConversation(t, r, hook, f, proto, local).serve(), func(s *packet.Spec) { s.DstMAC = mac })
			})
		}
		if hook != maps.HookXDP {
			return // the kernel has taken the tag out of the frame
		}
		for name, tags := range map[string][]uint16{"an unknown VLAN": {rig.VLAN + 1}, "two tags": {rig.VLAN, rig.VLAN}} {
			t.Run("of "+name, func(t *testing.T) {
				r.Reset(t)
				fn(newConversation(t, r, hook, f, proto, local).serve(), func(s *packet.Spec) { s.VLANs = tags })
			})
		}
	})
}

// overheard runs what the frame of another station is left alone as.
func (c *conversation) overheard(lost func(*packet.Spec), in packet.Spec) {
	c.t.Helper()
	lost(&in)
	wantOutcome(c.t, c.run(c.hook, in), rig.Pass, maps.VerdictNotOurs)
}

func TestFramesForOthersBeginNothing(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyStranger(t, r, func(c *conversation, lost func(*packet.Spec)) {
		c.overheard(lost, c.first())
		if c.proto != maps.UDP {
			c.overheard(lost, c.spec(c.f.client, c.f.vip, packet.ACK, "x"))
			c.overheard(lost, c.spec(c.f.client, c.f.vip, packet.RST, ""))
		}
		if half, all := countFlows(c.t, c.r.Set.HalfOpen()), countFlows(c.t, c.r.Set.Flows()); half+all != 0 {
			c.t.Errorf("%d half-open flows and %d entries in flows", half, all)
		}
		c.begin()
		c.goOn()
	})
}

// Nobody is told anything in the name of another host.
func TestFramesForOthersAreNotAnswered(t *testing.T) {
	t.Parallel()
	r := lendWith(t, answering)
	everyStranger(t, r, func(c *conversation, lost func(*packet.Spec)) {
		own(c.t, c.r, c.f.vip.Addr(), maps.AddressClusterIP)
		in := c.first()
		in.Dst = netip.AddrPortFrom(in.Dst.Addr(), 1)
		c.overheard(lost, in) // no such port
		c.abandon()
		c.overheard(lost, c.first()) // no endpoints
		in = c.first()
		in.TTL = 1
		c.overheard(lost, in)
		if c.onXDP() {
			return
		}
		own(c.t, c.r, c.f.vip.Addr(), maps.AddressExternal)
		in = c.first()
		lost(&in)
		wantOutcome(c.t, send(c.t, c.r, c.hook, pinging(in)(c.t), rig.Context{}), rig.Pass, maps.VerdictNotOurs)
	})
}

// While it has packets of its own here a flow carries those of others, too, for a tick.
func TestFramesForOthersDoNotKeepAFlow(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyStranger(t, r, func(c *conversation, lost func(*packet.Spec)) {
		c.begin()
		c.goOn()
		r.Age(c.t, 2)
		forward, reverse := c.entry(c.forwardKey()), c.entry(c.reverseKey())
		for range 2 {
			c.overheard(lost, c.spec(c.f.client, c.f.vip, packet.ACK, "x"))
			if !c.local {
				c.overheard(lost, c.replyOf(packet.ACK, "y"))
			}
		}
		if f, b := c.entry(c.forwardKey()), c.entry(c.reverseKey()); f != forward || b != reverse {
			c.t.Errorf("the flow has changed: %+v and %+v, were %+v and %+v", f, b, forward, reverse)
		}
		c.goOn()
	})
}

func TestFramesForOthersEndNothing(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyStranger(t, r, func(c *conversation, lost func(*packet.Spec)) {
		if c.proto != maps.TCP {
			return
		}
		c.begin()
		c.goOn()
		for _, flags := range []packet.Flags{packet.FIN | packet.ACK, packet.RST | packet.ACK, packet.SYN} {
			c.overheard(lost, c.spec(c.f.client, c.f.vip, flags, ""))
			if !c.local {
				c.overheard(lost, c.replyOf(flags, ""))
			}
		}
		c.wantFlags(0, 0)
		c.goOn()
	})
}

// A datagram to a backend that is gone moves its flow; not that of another host.
func TestFramesForOthersMoveNothing(t *testing.T) {
	t.Parallel()
	r := lendWith(t, rig.Config{ResetGone: true})
	everyStranger(t, r, func(c *conversation, lost func(*packet.Spec)) {
		c.begin()
		c.goOn()
		c.setState(maps.Gone)
		c.overheard(lost, c.spec(c.f.client, c.f.vip, packet.ACK, "x"))
		c.entry(c.forwardKey())
	})
}

func TestFragmentsAndErrorsForOthersAreLeftAlone(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCaseOf(t, r, datagrams, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if hook != maps.HookTCIngress {
			return // XDP leaves them to TC
		}
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		for _, piece := range c.forwardPieces(fragmentID).in {
			copy(piece, rig.OtherMAC)
			wantOutcome(t, send(t, r, hook, piece, rig.Context{}), rig.Pass, maps.VerdictNotOurs)
		}
		in, _ := c.aboutForward(tooBigOf(f), f.router()).frames(t)
		if local {
			return // comes from within
		}
		copy(in, rig.OtherMAC)
		wantOutcome(t, send(t, r, hook, in, rig.Context{}), rig.Pass, maps.VerdictNotOurs)
	})
}

// A virtual router's address, that of a device stacked on the uplink.
func TestFramesToAnotherAddressOfTheNodeAreItsOwn(t *testing.T) {
	t.Parallel()
	virtual := net.HardwareAddr{0, 0, 0x5e, 0, 1, 1}
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		s := maps.Station{Ifindex: r.World.Uplink, MAC: maps.MAC(virtual)}
		if err := r.Set.Stations().Put(s, 99); err != nil {
			t.Fatal(err)
		}
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.edit = func(s *packet.Spec) { s.DstMAC = virtual }
		c.begin()
		c.goOn()
	})
}

// The kernel knows the device's own address: where XDP does not, TC does.
func TestWhatXDPDoesNotKnowIsServedByTC(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if hook != maps.HookTCIngress {
			return
		}
		if err := r.Set.Stations().Delete(maps.Station{Ifindex: r.World.Uplink, MAC: maps.MAC(rig.NodeMAC)}); err != nil {
			t.Fatal(err)
		}
		c := newConversation(t, r, hook, f, proto, local).serve()
		wantOutcome(t, c.run(maps.HookXDP, c.first()), rig.Pass, maps.VerdictNotOurs)
		c.begin()
		c.goOn()
	})
}

// A priority is not a VLAN.
func TestAPriorityTagIsNoVLAN(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if hook != maps.HookXDP {
			return
		}
		c := newConversation(t, r, hook, f, proto, local).serve()
		in := c.first()
		in.VLANs = []uint16{0}
		action, verdict := rig.Pass, maps.VerdictToLocal
		if !local {
			verdict = maps.VerdictLeftToTC // which gets it without the tag
		}
		wantOutcome(t, c.run(hook, in), action, verdict)
	})
}

// Of service providers' tags (802.1ad) XDP writes none, whatever their number.
func TestAnotherKindOfTagIsUnknown(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, secondNet, func(c *conversation) {
		if !c.onXDP() {
			return
		}
		putDevice(c.t, r, r.World.Second, vlanDevice(r))
		c.vlans = []uint16{rig.VLAN}
		in := frame(c.t, c.first())
		in[12], in[13] = 0x88, 0xa8
		wantOutcome(c.t, send(c.t, r, c.hook, in, rig.Context{}), rig.Pass, maps.VerdictNotOurs)
	})
}

// martians are sources that no client beyond an uplink has, by whether they are of
// IPv4, and others that clients may have.
var (
	martians = map[bool][]string{
		true:  {"0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "224.0.0.1", "239.255.255.255", "255.255.255.255"},
		false: {"::", "::1", "ff02::1", "ff0e::2", "fe80::1", "febf::1"},
	}
	clients = map[bool][]string{
		true:  {"1.0.0.1", "126.255.255.255", "128.0.0.1", "223.255.255.255", "169.254.1.1", "240.0.0.1", "255.255.255.254"},
		false: {"::2", "fec0::1", "fd00::1", "fe7f::1", "2001:db8::1", "0:0:0:1::1"},
	}
)

func TestSourcesThatNobodyCanHaveBeginNothing(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyUplink(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		own(t, r, f.node, maps.AddressNode)
		own(t, r, f.vip.Addr(), maps.AddressNode|maps.AddressExternal)
		from := append(martians[f.node.Is4()], f.node.String(), f.vip.Addr().String())
		for _, src := range from {
			in := c.first()
			in.Src = withAddr(in.Src, netip.MustParseAddr(src))
			got := c.run(hook, in)
			if got.Action != rig.Drop || got.Verdict != maps.VerdictMartian {
				t.Errorf("%s: %s and %s, want drop and %s", src, got.Action, got.Verdict, maps.VerdictMartian)
			}
		}
		if n := countFlows(t, r.Set.HalfOpen()); n != 0 {
			t.Errorf("%d half-open flows", n)
		}
		for _, src := range clients[f.node.Is4()] {
			in := c.first()
			in.Src = withAddr(in.Src, netip.MustParseAddr(src))
			if got := c.run(hook, in); got.Verdict != maps.VerdictToLocal && got.Verdict != maps.VerdictToRemote {
				t.Errorf("%s: %s, want to-local or to-remote", src, got.Verdict)
			}
		}
	})
}
