package datapath

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// The middle of a connection nobody knows: the state was lost, or the
// connection came over from another node.

// several makes a service of n backends of one place and returns them.
func several(c *conversation, n int) []netip.AddrPort {
	c.t.Helper()
	var addrs []netip.AddrPort
	var backends []maps.Backend
	for addr := c.backend.Addr(); len(addrs) < n; addr = addr.Next() {
		addrs = append(addrs, netip.AddrPortFrom(addr, c.backend.Port()))
		backends = append(backends, rig.Backend(addrs[len(addrs)-1].String(), c.local))
	}
	c.r.AddService(c.t, c.f.frontend(c.proto), backends...)
	return addrs
}

// chosen is which of the local backends addrs a translated frame went to.
func (c *conversation) chosen(got rig.Result, in packet.Spec, addrs []netip.AddrPort) netip.AddrPort {
	c.t.Helper()
	for _, addr := range addrs {
		want := in
		want.Dst = addr
		if packet.Diff(frame(c.t, want), got.Frame) == "" {
			return addr
		}
	}
	c.t.Fatalf("%s, and the frame went to no backend of the service", got.Verdict)
	return netip.AddrPort{}
}

// The table leads the same tuple to the same backend, and the client's address
// and port reach it as before.
func TestALocalConnectionSurvivesTheLossOfAllState(t *testing.T) {
	t.Parallel()
	r := lend(t)
	used := make(map[netip.AddrPort]bool)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if !local || proto == maps.UDP {
			return
		}
		for port := range uint16(8) {
			r.Reset(t)
			c := newConversation(t, r, hook, withClient(f, 41000+port), proto, true)
			addrs := several(c, 5)
			syn := c.spec(c.f.client, c.f.vip, packet.SYN, "")
			c.backend = c.chosen(c.run(hook, syn), syn, addrs)
			c.reply(packet.SYN|packet.ACK, "")
			c.forward(packet.ACK, "")
			c.evict(c.forwardKey())
			c.evict(c.reverseKey())
			c.goOn()
			c.goOn()
			c.wantFlags(0, 0)
			used[c.backend] = true
		}
	})
	if len(used) < 2 {
		t.Errorf("all connections went to %v: that proves nothing", used)
	}
}

// stray is a packet in the middle of a connection.
type stray struct {
	name     string
	edit     func(*packet.Spec)
	answered bool
}

// strays are of TCP whatever flags may stand in a segment that begins nothing, of
// SCTP every kind of chunk that has a rule of its own (RFC 9260, 8.4 and 8.5.1).
func strays(proto maps.Proto) (all []stray) {
	if proto == maps.TCP {
		for _, flags := range []packet.Flags{
			0, packet.ACK, packet.PSH | packet.ACK, packet.FIN, packet.FIN | packet.ACK, packet.RST, packet.RST | packet.ACK,
		} {
			set := func(s *packet.Spec) { s.Flags = flags }
			all = append(all, stray{fmt.Sprintf("flags %#x", uint8(flags)), set, flags&packet.RST == 0})
		}
		return all
	}
	for _, k := range []struct {
		name      string
		chunk     packet.Chunk
		reflected bool
		payload   string
		answered  bool
	}{
		{"DATA", packet.Data, false, "of odd length", true},
		{"HEARTBEAT", packet.Heartbeat, false, "", true},
		{"COOKIE ECHO", packet.CookieEcho, false, "cookie", true},
		{"SHUTDOWN", packet.Shutdown, false, "1234", true},
		{"SHUTDOWN ACK", packet.ShutdownAck, false, "", true},
		{"ERROR", packet.Error, false, "\x00\x06\x00\x04", true},
		{"ERROR without a cause", packet.Error, false, "", true},
		{"ERROR, stale cookie", packet.Error, false, "\x00\x03\x00\x08\x00\x00\x00\x00", false},
		{"COOKIE ACK", packet.CookieAck, false, "", false},
		{"ABORT", packet.Abort, false, "", false},
		{"ABORT, the tag it got", packet.Abort, true, "", false},
		{"SHUTDOWN COMPLETE", packet.ShutdownComplete, false, "", false},
		{"INIT with a tag", packet.Init, false, "", false},
	} {
		all = append(all, stray{k.name, func(s *packet.Spec) {
			s.Chunk, s.Reflected, s.Payload, s.Tag = k.chunk, k.reflected, []byte(k.payload), backendTag
		}, k.answered})
	}
	return all
}

// spec is s as a packet of the client of c.
func (s stray) spec(c *conversation, payload string) packet.Spec {
	in := c.spec(c.f.client, c.f.vip, packet.ACK, payload)
	s.edit(&in)
	return in
}

// ends reports whether the packet ends its connection: XDP drops it.
func (s stray) ends(in packet.Spec) bool {
	if in.Proto == maps.TCP {
		return in.Flags&packet.RST != 0
	}
	return in.Chunk == packet.Abort || in.Chunk == packet.ShutdownComplete
}

// everyUnknown runs fn for each connection that cannot be continued, its state
// being lost: at uplinks those whose source port went with it, at a pod's link
// that of a pod to itself.
func everyUnknown(t *testing.T, r *rig.Rig, fn func(c *conversation)) {
	t.Helper()
	everyConnection(t, r, func(c *conversation) {
		if !c.local {
			fn(c)
		}
	})
	for _, proto := range []maps.Proto{maps.TCP, maps.SCTP} {
		for _, f := range families {
			t.Run("a pod to itself/"+f.name+"/"+proto.String(), func(t *testing.T) {
				r.Reset(t)
				fn(newPodTalk(t, r, f, proto, itself).serve().conversation)
			})
		}
	}
}

// everyStray runs fn for each packet of each such connection.
func everyStray(t *testing.T, r *rig.Rig, fn func(c *conversation, s stray)) {
	t.Helper()
	everyUnknown(t, r, func(c *conversation) {
		for _, s := range strays(c.proto) {
			c.t.Run(s.name, func(t *testing.T) {
				own := *c
				own.t = t
				fn(&own, s)
				own.wantNoForwardEntry()
			})
		}
		if c.hook != maps.HookPodIngress {
			c.handshake() // nothing is in the way of a new one
			c.goOn()
		}
	})
}

// answerUnknown is what a client is told that goes on with what is lost.
func (c *conversation) answerUnknown() func([]byte) ([]byte, error) {
	if c.proto == maps.TCP {
		return packet.Reset
	}
	return packet.OutOfTheBlue
}

// Of a connection to another node the source port is lost with its state. Its
// client learns that at once, from the address it dialled.
func TestAConnectionNobodyKnowsIsReset(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyStray(t, r, func(c *conversation, s stray) {
		for name, in := range shapes(s.spec(c, "")) {
			if name == "long" && c.proto == maps.SCTP {
				continue // the payload says what the chunk is
			}
			if !s.answered {
				c.wantSilence(in, s.ends(in))
				continue
			}
			if name == "tagged with options" && !c.onXDP() {
				wantOutcome(c.t, c.run(c.hook, in), rig.Drop, maps.VerdictNoFlow) // see TestARSTIsNotMadeOfWhatTheKernelDoesNotCut
				continue
			}
			c.wantAnswer(plain(in), maps.VerdictNoFlow, c.answerUnknown())
		}
	})
}

// wantSilence checks that in is dropped, and by XDP too if that can see why.
func (c *conversation) wantSilence(in packet.Spec, seen bool) {
	c.t.Helper()
	got := send(c.t, c.r, c.hook, frame(c.t, in), rig.Context{})
	if c.onXDP() && !seen {
		wantOutcome(c.t, got, rig.Pass, maps.VerdictLeftToTC)
		return
	}
	wantOutcome(c.t, got, rig.Drop, maps.VerdictNoFlow)
}

// The bytes that fill up a frame take no sequence numbers, those of the segment do.
func TestARSTOfAConnectionNobodyKnowsCountsTheSegmentOnly(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyUnknown(t, r, func(c *conversation) {
		for _, payload := range []string{"", "x", "some more bytes"} {
			in := c.spec(c.f.client, c.f.vip, packet.FIN, payload)
			padded := func(t *testing.T) []byte { return append(frame(t, in), make([]byte, 17)...) }
			c.wantAnswer(padded, maps.VerdictNoFlow, c.answerUnknown())
		}
	})
}

func TestAConnectionNobodyKnowsIsDroppedIfConfigured(t *testing.T) {
	t.Parallel()
	r := lendWith(t, rig.Config{UnknownFlow: loader.UnknownDrop})
	everyStray(t, r, func(c *conversation, s stray) {
		wantOutcome(c.t, c.run(c.hook, s.spec(c, "")), rig.Drop, maps.VerdictNoFlow)
	})
}

func TestAConnectionNobodyKnowsPassesIfConfigured(t *testing.T) {
	t.Parallel()
	r := lendWith(t, rig.Config{UnknownFlow: loader.UnknownPass})
	everyStray(t, r, func(c *conversation, s stray) {
		wantOutcome(c.t, c.run(c.hook, s.spec(c, "")), rig.Pass, maps.VerdictNotService)
	})
}

// Who sends much of what nobody knows does not make the node send as much.
func TestResetsOfWhatNobodyKnowsAreLimited(t *testing.T) {
	t.Parallel()
	for _, hook := range append([]maps.Hook{maps.HookPodIngress}, ingressHooks...) {
		for _, proto := range []maps.Proto{maps.TCP, maps.SCTP} {
			t.Run(hook.String()+"/"+proto.String(), func(t *testing.T) {
				r := lendWith(t, oneASecond)
				c := newConversation(t, r, hook, families[0], proto, false)
				if hook == maps.HookPodIngress {
					c = newPodTalk(t, r, families[0], proto, itself).conversation
				}
				c.serve()
				answered, limited := c.untilLimited(c.spec(c.f.client, c.f.vip, packet.ACK, "x"))
				wantOutcome(t, limited, rig.Drop, maps.VerdictRejectLimited)
				wantBurst(t, answered)
				// What gets no answer is dropped for its reason, limit or not.
				c.wantSilence(c.spec(c.f.client, c.f.vip, packet.RST, ""), true)
			})
		}
	}
}

// Whatever the source pretends to be.
func TestAConnectionNobodyCanHaveIsNotReset(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyUnknown(t, r, func(c *conversation) {
		if c.onXDP() || c.hook == maps.HookPodIngress {
			return
		}
		in := c.spec(c.f.client, c.f.vip, packet.ACK, "x")
		for _, src := range unanswerable[c.f.vip.Addr().Is4()] {
			in.Src = withAddr(in.Src, netip.MustParseAddr(src))
			wantOutcome(c.t, c.run(c.hook, in), rig.Drop, maps.VerdictMartian)
		}
	})
}

func (c *conversation) wantNoForwardEntry() {
	c.t.Helper()
	if f, ok := c.lookup(c.forwardKey()); ok {
		c.t.Fatalf("there is a flow %s: %+v", c.forwardKey(), f)
	}
}
