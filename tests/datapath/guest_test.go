package datapath

import (
	"encoding/binary"
	"sync/atomic"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Connections without a Service that want the tuple of a flow, see bpf/flow/guest.h.

// guest is such a connection, to the backend of c: of its client or, where that has
// its backend elsewhere, of the node itself.
type guest struct {
	c    *conversation
	d    *conversation // its packets as it sends them, and as it wants to see them
	out  maps.Hook     // which they pass on their way to the backend, and back
	back maps.Hook
	port uint16 // by which the backend sees it
}

// guestPorts are given to clients once, and lent by the node as well: who used a tuple
// before is remembered.
var guestPorts atomic.Uint32

// unique is c with a port no other client has.
func (c *conversation) unique() *conversation {
	return c.another(withPort(c.f.client, uint16(20000+guestPorts.Add(1))))
}

// guestOf uses the client's port, or that which the flow has from the node.
func (c *conversation) guestOf(port uint16) *guest {
	g := &guest{c: c, out: c.hook, back: c.backHook(), port: port}
	if c.local {
		g.d = c.another(withPort(c.f.client, port))
	} else {
		g.d = c.another(withAddr(withPort(c.f.client, port), c.f.node))
		g.out, g.back = maps.HookTCEgress, c.hook
	}
	g.d.f.vip = c.backend
	return g
}

// says is a packet to the backend; it arrives by g.port.
func (g *guest) says(flags packet.Flags, payload string) {
	t := g.c.t
	t.Helper()
	in := g.d.spec(g.d.f.client, g.c.backend, flags, payload)
	got := g.c.run(g.out, in)
	if got.Action != rig.Pass {
		t.Fatalf("what goes to the backend itself: %s and %s", got.Action, got.Verdict)
	}
	want := in
	want.Src = withPort(in.Src, g.port)
	if d := packet.Diff(frame(t, want), got.Frame); d != "" {
		t.Fatalf("what goes to the backend itself, %s:\n%s", got.Verdict, d)
	}
}

// hears is one of the backend; it arrives as from the backend itself.
func (g *guest) hears(flags packet.Flags, payload string) {
	t := g.c.t
	t.Helper()
	want := g.d.spec(g.c.backend, g.d.f.client, flags, payload)
	in := want
	in.Dst = withPort(want.Dst, g.port)
	got := g.c.run(g.back, in)
	if got.Verdict == maps.VerdictLeftToTC {
		got = g.c.run(maps.HookTCIngress, in)
	}
	if got.Action != rig.Pass {
		t.Fatalf("the backend's answer: %s and %s", got.Action, got.Verdict)
	}
	if d := packet.Diff(frame(t, want), got.Frame); d != "" {
		t.Fatalf("the backend's answer, %s:\n%s", got.Verdict, d)
	}
}

// moves has it begin, which shall give it another port.
func (g *guest) moves() {
	t := g.c.t
	t.Helper()
	in := g.d.spec(g.d.f.client, g.c.backend, opening(g.c.proto), "")
	got := g.c.run(g.out, in)
	wantOutcome(t, got, rig.Pass, maps.VerdictToLocal)
	g.port = binary.BigEndian.Uint16(got.Frame[in.L4():])
	if g.port == in.Src.Port() {
		t.Fatalf("both have the port %d", g.port)
	}
	g.says(opening(g.c.proto), "")
}

// talks is the rest of a connection that has begun.
func (g *guest) talks() {
	t := g.c.t
	t.Helper()
	g.hears(opening(g.c.proto)|packet.ACK, "")
	g.says(packet.ACK, "")
	for range 2 {
		g.says(packet.PSH|packet.ACK, "question")
		g.hears(packet.PSH|packet.ACK, "answer")
		g.c.r.Age(t, 1)
	}
}

// beginByAnyPort sends a first packet that may get another source port.
func (c *conversation) beginByAnyPort() {
	c.t.Helper()
	if c.local {
		c.learn()
	} else {
		c.forward(opening(c.proto), "")
	}
}

// port is the one by which the backend sees the client of c.
func (c *conversation) port() uint16 { return c.source().Port() }

func TestAConnectionToTheBackendItselfBesideAFlowHasAnotherPort(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, begin := range map[string]func(c *conversation){
		"begun":       func(c *conversation) { c.forward(opening(c.proto), "") },
		"answered":    func(c *conversation) { c.forward(opening(c.proto), ""); c.reply(opening(c.proto)|packet.ACK, "") },
		"established": func(c *conversation) { c.begin(); c.goOn() },
	} {
		t.Run(name, func(t *testing.T) {
			everyTalk(t, r, func(c *conversation) {
				c = c.unique()
				begin(c)
				g := c.guestOf(c.port())
				g.moves()
				g.talks()
				c.begin()
				c.goOn()
				g.talks()
				c.goOn()
			})
		})
	}
}

// The backend takes a SYN for a connection that is over.
func TestAConnectionToTheBackendItselfAfterAFlowKeepsItsPort(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			everyConnection(t, r, func(c *conversation) {
				c = c.unique()
				c.begin()
				c.goOn()
				c.end(end(c.proto))
				g := c.guestOf(c.port())
				g.says(opening(c.proto), "")
				g.talks()
			})
		})
	}
}

func TestAFlowBesideAConnectionToTheBackendItselfHasAnotherPort(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		c = c.unique()
		g := c.guestOf(c.f.client.Port()) // which is one that the node lends
		g.says(opening(c.proto), "")
		g.talks()
		c.beginByAnyPort()
		if c.port() == g.port {
			t.Fatalf("both have the port %d", g.port)
		}
		c.begin()
		c.goOn()
		g.talks()
	})
}

// It began before anybody looked. The backend acknowledges what its client has sent.
func TestAFlowBesideAConnectionNobodyKnowsHasAnotherPortWithItsNextSYN(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c = c.unique()
		c.forward(packet.SYN, "")
		first := c.port()
		g := c.guestOf(first)
		challenge := g.d.spec(c.backend, g.d.f.client, packet.ACK, "")
		got := c.run(g.back, challenge)
		if c.local {
			wantOutcome(c.t, got, rig.Pass, maps.VerdictNotService)
		} else {
			wantOutcome(c.t, got, rig.Drop, maps.VerdictSNATUnknown) // but for who knows it
		}
		c.snat = 0
		c.beginByAnyPort()
		if c.port() == first {
			t.Fatalf("both have the port %d", first)
		}
		c.begin()
		c.goOn()
	})
}

// Its datagrams have passed before there was a flow; the next one tells.
func TestDatagramsToTheBackendItselfGoOnBesideAFlow(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.UDP, func(c *conversation) {
		c = c.unique()
		g := c.guestOf(c.f.client.Port())
		if !c.local {
			c.r.Bind(c.t, g.d.f.client) // or nobody would know whose the answer is
		}
		g.says(0, "first")
		g.hears(0, "answer")
		c.forward(0, "question")
		if c.port() != g.port {
			return
		}
		g.moves()
		g.talks()
		c.begin()
		c.goOn()
	})
}

// What XDP has translated passes TC, too.
func TestTCLeavesAloneWhatXDPHasTranslatedBesideAGuest(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyTalk(t, r, func(c *conversation) {
		if c.hook != maps.HookXDP {
			return
		}
		const flags = packet.PSH | packet.ACK
		uplink := rig.UplinkDevice()
		uplink.XDPTx = true
		if err := r.Set.Devices().Put(r.World.Uplink, uplink); err != nil {
			t.Fatal(err)
		}
		c = c.unique()
		c.begin()
		c.goOn()
		g := c.guestOf(c.port())
		g.moves()
		g.talks()
		passed := c.spec(c.f.client, c.backend, flags, "of the flow")
		if !c.local { // of the guest: its answer, which XDP has left alone
			passed = g.d.spec(c.backend, withPort(g.d.f.client, g.port), flags, "of the guest")
			wantOutcome(t, c.run(maps.HookXDP, passed), rig.Pass, maps.VerdictLeftToTC)
			wantOutcome(t, c.run(maps.HookTCIngress, passed), rig.Pass, maps.VerdictReplyLocal)
			return
		}
		wantOutcome(t, c.run(maps.HookTCIngress, passed), rig.Pass, maps.VerdictNotService)
	})
}
