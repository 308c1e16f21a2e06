package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Halves that are lost, and flows that are lost as a whole.

// It is connected to that backend, whatever the table says by now.
func TestAConnectionThatLostItsForwardHalfKeepsItsBackendThoughTheTableChanged(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		c.begin()
		c.goOn()
		c.evict(c.forwardKey())
		next := c.succeed()
		c.forward(packet.PSH|packet.ACK, "request")
		c.reply(packet.PSH|packet.ACK, "response")
		c.wantState(established)
		c.wantConnections(1, 0)
		next.wantConnections(0, 0)
	})
}

// Evicted by a flood, or by time: the backend's half says who it was.
func TestAHandshakeThatLostItsForwardHalfKeepsItsBackendThoughTheTableChanged(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		if err := c.r.Set.HalfOpen().Delete(c.forwardKey()); err != nil {
			c.t.Fatal(err)
		}
		next := c.succeed()
		c.forward(packet.ACK, "")
		c.goOn()
		c.wantState(established)
		c.wantConnections(1, 0)
		next.wantConnections(0, 0)
	})
}

// Where its client's own port reaches the backend; that says whether it knows it.
func TestALocalConnectionNobodyKnowsIsTakenForOneWhenItsBackendGoesOn(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		if !c.local {
			return
		}
		c.forward(packet.PSH|packet.ACK, "in the middle")
		c.wantConnections(0, 0)
		if c.found()[established] != (entries{}) {
			c.t.Error("a flow its backend has not confirmed is established")
		}
		c.reply(packet.ACK, "")
		c.wantState(established)
		c.wantConnections(1, 0)
		c.goOn()
	})
}

func TestALocalConnectionNobodyKnowsEndsWithItsBackendsRST(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		if !c.local {
			return
		}
		c.forward(packet.PSH|packet.ACK, "in the middle")
		c.reply(packet.RST, "")
		c.wantConnections(0, 0)
		if c.found()[established] != (entries{}) {
			c.t.Error("a flow its backend has refused is established")
		}
		c.begin()
		c.goOn()
		c.wantConnections(1, 0)
	})
}

// A flood of segments in the middle of nothing is no better than one of SYNs.
func TestAFloodOfUnknownConnectionsEvictsNoEstablishedFlow(t *testing.T) {
	t.Parallel()
	r := lendWith(t, small)
	someLocal(t, r, connections, func(c *conversation) {
		all := c.company(20)
		c.hear(c.f.crowd(many(5*int(small.Sizes.Flows))), said{flags: packet.ACK, payload: "x"}, said{byBackend: true, flags: packet.RST})
		c.wantConnections(uint64(len(all)), 0)
		wantAlive(all)
	})
}

// What a backend elsewhere says to a port of ours is no business of the node's: it
// has no such socket, and its RST would end the connection.
func TestWhatABackendElsewhereSaysToALostFlowIsDropped(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyTalk(t, r, func(c *conversation) {
		if c.local {
			return
		}
		c.begin()
		c.goOn()
		c.forget()
		got := c.backendSays(c.replyOf(packet.PSH|packet.ACK, "data"))
		wantOutcome(c.t, got, rig.Drop, maps.VerdictSNATUnknown)
	})
}

func TestWhatOthersSayToAPortOfOursIsTheNodes(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyTalk(t, r, func(c *conversation) {
		if c.local {
			return
		}
		c.begin()
		c.goOn()
		in := c.replyOf(packet.PSH|packet.ACK, "data")
		in.Src = c.f.crowd(1)[0]
		for _, hook := range ingressHooks {
			wantOutcome(c.t, c.run(hook, in), rig.Pass, maps.VerdictNotService)
		}
		in = c.replyOf(packet.PSH|packet.ACK, "data")
		in.Dst = withPort(in.Dst, 443) // not one of those that are lent
		for _, hook := range ingressHooks {
			wantOutcome(c.t, c.run(hook, in), rig.Pass, maps.VerdictNotService)
		}
	})
}

// The node may talk to the pod too, from a port it was given before they were
// set apart, or by a process that binds what it wants.
func TestWhatABackendSaysToASocketOfTheNodeReachesIt(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.UDP, func(c *conversation) {
		if c.local {
			return
		}
		c.begin()
		c.forget()
		in := c.replyOf(0, "data")
		wantOutcome(c.t, c.backendSays(in), rig.Drop, maps.VerdictSNATUnknown)
		c.r.Bind(c.t, in.Dst)
		wantOutcome(c.t, c.backendSays(in), rig.Pass, maps.VerdictNotService)
	})
}

// The pod's own address must not reach a client that knows a service's only.
func TestWhatALocalBackendSaysToALostFlowIsDropped(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		if !c.local || c.hook == maps.HookPodIngress {
			return
		}
		c.begin()
		c.goOn()
		c.forget()
		for _, flags := range []packet.Flags{packet.PSH | packet.ACK, packet.FIN | packet.ACK, packet.RST} {
			in := c.replyOf(flags, "")
			wantOutcome(c.t, c.run(maps.HookTCEgress, in), rig.Drop, maps.VerdictBackendAstray)
		}
		c.forward(packet.ACK, "the client brings it back")
		c.reply(packet.PSH|packet.ACK, "data")
		c.goOn()
	})
}

// Somebody who talks to the pod by its own address is none of ours.
func TestWhoTalksToABackendDirectlyIsLeftAlone(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		if !c.local || c.hook == maps.HookPodIngress {
			return
		}
		c.begin()
		c.goOn()
		for i, client := range c.f.crowd(64) {
			direct := c.another(client)
			direct.f.vip = c.backend
			wantOutcome(c.t, direct.run(c.hook, direct.first()), rig.Pass, maps.VerdictNotService)
			for _, flags := range []packet.Flags{packet.SYN | packet.ACK, packet.PSH | packet.ACK, packet.FIN | packet.ACK, packet.RST} {
				got := direct.run(maps.HookTCEgress, direct.replyOf(flags, "x"))
				if got.Verdict != maps.VerdictNotService || got.Action != rig.Pass {
					c.t.Fatalf("client %d, flags %#x: %s and %s", i, uint8(flags), got.Action, got.Verdict)
				}
			}
		}
		direct := c.another(c.f.crowd(1)[0]) // to the client's side, as a client
		got := direct.run(maps.HookTCEgress, direct.replyOf(packet.SYN, ""))
		wantOutcome(c.t, got, rig.Pass, maps.VerdictNotService)
	})
}
