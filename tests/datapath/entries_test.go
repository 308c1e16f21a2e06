package datapath

import (
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// What the maps hold about a conversation, and how tests change it.

// forwardKey is the tuple of the client's packets.
func (c *conversation) forwardKey() maps.FlowKey {
	return maps.FlowKey{Src: c.f.client, Dst: c.f.vip, Proto: c.proto}
}

// reverseKey is the tuple of the backend's packets.
func (c *conversation) reverseKey() maps.FlowKey {
	in := c.replyOf(0, "")
	return maps.FlowKey{Src: in.Src, Dst: in.Dst, Proto: c.proto}
}

func (c *conversation) lookup(k maps.FlowKey) (maps.Flow, bool) {
	c.t.Helper()
	f, ok, err := c.r.Set.Flows().Lookup(k)
	if err != nil {
		c.t.Fatal(err)
	}
	return f, ok
}

func (c *conversation) entry(k maps.FlowKey) maps.Flow {
	c.t.Helper()
	f, ok := c.lookup(k)
	if !ok {
		c.t.Fatalf("no flow %s", k)
	}
	return f
}

// evict removes one half of the flow, as the kernel does when flows is full.
func (c *conversation) evict(k maps.FlowKey) {
	c.t.Helper()
	c.entry(k)
	if err := c.r.Set.Flows().Delete(k); err != nil {
		c.t.Fatal(err)
	}
}

// age makes the next packet of k the first one of a tick. The half forgets
// what was acknowledged in its direction.
func (c *conversation) age(k maps.FlowKey) {
	c.t.Helper()
	f := c.entry(k)
	f.Seen--
	if err := c.r.Set.Flows().Put(k, f); err != nil {
		c.t.Fatal(err)
	}
}

// placeFlags say where the backend is, and where the flow acts.
const placeFlags = maps.FlowRemote | maps.FlowPod | maps.FlowHairpin

// wantFlags checks the state of the flow as its two halves have it. Where the
// backend is does not matter here.
func (c *conversation) wantFlags(forward, reverse maps.FlowFlags) {
	c.t.Helper()
	if got := c.entry(c.forwardKey()).Flags &^ placeFlags; got != forward {
		c.t.Fatalf("forward half: %s, want %s", got, forward)
	}
	reverse |= maps.FlowReverse
	if got := c.entry(c.reverseKey()).Flags &^ placeFlags; got != reverse {
		c.t.Fatalf("reverse half: %s, want %s", got, reverse)
	}
}

func (c *conversation) wantNoFlow() {
	c.t.Helper()
	for _, k := range []maps.FlowKey{c.forwardKey(), c.reverseKey()} {
		if f, ok := c.lookup(k); ok {
			c.t.Fatalf("there is a flow %s: %+v", k, f)
		}
	}
}

// counts is what the backend has done since it was served.
func (c *conversation) counts() maps.BackendCounts {
	c.t.Helper()
	n, err := c.r.Set.Stats().Get(c.id)
	if err != nil {
		c.t.Fatal(err)
	}
	n.Opened -= c.base.Opened
	n.Closed -= c.base.Closed
	n.Packets -= c.base.Packets
	n.Bytes -= c.base.Bytes
	n.RxPackets -= c.base.RxPackets
	n.RxBytes -= c.base.RxBytes
	for i := range n.Handshake {
		n.Handshake[i] -= c.base.Handshake[i]
	}
	return n
}

// wantConnections checks how many connections of the backend were opened and closed.
func (c *conversation) wantConnections(opened, closed uint64) {
	c.t.Helper()
	n := c.counts()
	if n.Opened != opened || n.Closed != closed {
		c.t.Fatalf("the backend has %d connections opened and %d closed, want %d and %d", n.Opened, n.Closed, opened, closed)
	}
}

// putBackend changes the backend of the conversation in place.
func (c *conversation) putBackend(change func(*maps.Backend)) {
	c.t.Helper()
	all, err := c.r.Set.Backends().All()
	if err != nil {
		c.t.Fatal(err)
	}
	b := all[c.id]
	change(&b)
	if err := c.r.Set.Backends().Put(c.id, b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *conversation) setState(s maps.State) {
	c.t.Helper()
	c.putBackend(func(b *maps.Backend) { b.State = s })
}

// succeed makes the service lead to another backend from now on, and returns
// what the same client then has with it; nothing is said there yet.
func (c *conversation) succeed() *conversation {
	c.t.Helper()
	next := newConversation(c.t, c.r, c.hook, c.f, c.proto, c.local)
	next.backend = netip.AddrPortFrom(c.backend.Addr().Next(), c.backend.Port())
	return next.serve()
}

// closeByFIN ends a connection the friendly way, the client first.
func (c *conversation) closeByFIN() {
	c.t.Helper()
	c.forward(packet.FIN|packet.ACK, "")
	c.reply(packet.FIN|packet.ACK, "")
	c.forward(packet.ACK, "")
}

// begin opens the flow: a handshake, or as many datagrams as prove that there
// are two who talk to each other.
func (c *conversation) begin() {
	c.t.Helper()
	if c.proto != maps.UDP {
		c.handshake()
		return
	}
	c.forward(0, "first")
	c.reply(0, "second")
	c.forward(0, "third")
}

// goOn exchanges data in both directions.
func (c *conversation) goOn() {
	c.t.Helper()
	c.forward(packet.PSH|packet.ACK, "how are you")
	c.reply(packet.PSH|packet.ACK, "as before")
}

// wantVerdict sends a packet of the client and checks only what became of it.
func (c *conversation) wantVerdict(flags packet.Flags, action rig.Action, verdict maps.Verdict) {
	c.t.Helper()
	wantOutcome(c.t, c.run(c.hook, c.spec(c.f.client, c.f.vip, flags, "")), action, verdict)
}

func wantOutcome(t *testing.T, got rig.Result, action rig.Action, verdict maps.Verdict) {
	t.Helper()
	if got.Action != action || got.Verdict != verdict {
		t.Fatalf("got %s and %s, want %s and %s", got.Action, got.Verdict, action, verdict)
	}
}
