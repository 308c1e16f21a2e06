package datapath

import (
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// everyTCPCase is everyCase for TCP only.
func everyTCPCase(t *testing.T, r *rig.Rig, fn func(t *testing.T, hook maps.Hook, f family, local bool)) {
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if proto == maps.TCP {
			fn(t, hook, f, local)
		}
	})
}

func TestASYNSentAgainGoesToTheSameBackendAndPort(t *testing.T) {
	r := lend(t)
	everyTCPCase(t, r, func(t *testing.T, hook maps.Hook, f family, local bool) {
		c := newConversation(t, r, hook, f, maps.TCP, local).serve()
		c.forward(packet.SYN, "")
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		c.forward(packet.SYN, "") // the answer was lost
		c.reply(packet.SYN|packet.ACK, "")
		c.forward(packet.ACK, "")
		c.forward(packet.PSH|packet.ACK, "request")
		c.reply(packet.PSH|packet.ACK, "response")
		if n := countFlows(t, r.Set.Flows()); n != 2 {
			t.Errorf("%d entries in flows, want 2", n)
		}
	})
}

// moved is c after the table of its service got another backend.
func moved(t *testing.T, c *conversation) *conversation {
	t.Helper()
	second := *c
	second.backend, second.snat = otherBackend(c.backend), 0
	second.serve()
	return &second
}

func otherBackend(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Next(), a.Port())
}

// Between two SYNs of a client the table may change, so that two backends
// answer: the first one gets the connection, the other is not heard.
func TestOfTwoBackendsThatAnswerTheFirstGetsTheConnection(t *testing.T) {
	r := lend(t)
	everyTCPCase(t, r, func(t *testing.T, hook maps.Hook, f family, local bool) {
		first := newConversation(t, r, hook, f, maps.TCP, local).serve()
		first.forward(packet.SYN, "")
		first.reply(packet.SYN|packet.ACK, "") // lost on its way
		second := moved(t, first)
		second.forward(packet.SYN, "")
		second.lateReply()
		first.reply(packet.SYN|packet.ACK, "") // the backend sends it again
		first.forward(packet.ACK, "")
		first.forward(packet.PSH|packet.ACK, "request")
		first.reply(packet.PSH|packet.ACK, "response")
	})
}

func TestABackendThatNeverAnsweredIsForgottenWithTheNextSYN(t *testing.T) {
	r := lend(t)
	everyTCPCase(t, r, func(t *testing.T, hook maps.Hook, f family, local bool) {
		first := newConversation(t, r, hook, f, maps.TCP, local).serve()
		first.forward(packet.SYN, "")
		second := moved(t, first)
		second.forward(packet.SYN, "")
		second.reply(packet.SYN|packet.ACK, "")
		second.forward(packet.ACK, "")
		second.forward(packet.PSH|packet.ACK, "request")
		second.reply(packet.PSH|packet.ACK, "response")
	})
}

func TestTheAnswerOfAnotherBackendCountsOnceTheFirstIsGone(t *testing.T) {
	r := lend(t)
	everyTCPCase(t, r, func(t *testing.T, hook maps.Hook, f family, local bool) {
		c := newConversation(t, r, hook, f, maps.TCP, local)
		b := rig.Backend(c.backend.String(), local)
		_, id := r.AddService(t, f.frontend(maps.TCP), b)
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		second := moved(t, c)
		b.State = maps.Gone
		if err := r.Set.Backends().Put(id, b); err != nil {
			t.Fatal(err)
		}
		second.forward(packet.SYN, "")
		second.reply(packet.SYN|packet.ACK, "")
		second.forward(packet.ACK, "")
		second.reply(packet.PSH|packet.ACK, "response")
	})
}

// lateReply sends a SYN-ACK that must not reach the client.
func (c *conversation) lateReply() {
	c.t.Helper()
	hook, to := c.backHook(), c.f.client
	if !c.local {
		hook, to = c.hook, netip.AddrPortFrom(c.f.node, c.snat)
	}
	got := c.run(hook, c.spec(c.backend, to, packet.SYN|packet.ACK, ""))
	if got.Verdict != maps.VerdictLateAnswer || got.Action != rig.Drop {
		c.t.Fatalf("got %s and %s, want %s and %s", got.Action, got.Verdict, rig.Drop, maps.VerdictLateAnswer)
	}
}

// The table changed between two SYNs; what the first backend says about the one it
// got does not concern the other.
func TestARefusalOfABackendTheClientHasLeftIsNotHeard(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(first *conversation) {
		first.forward(packet.SYN, "")
		second := first.succeed()
		second.forward(packet.SYN, "")
		for range 2 {
			got := first.backendSays(first.replyOf(packet.RST|packet.ACK, ""))
			wantOutcome(first.t, got, rig.Drop, maps.VerdictLateAnswer)
		}
		second.reply(packet.SYN|packet.ACK, "")
		got := first.backendSays(first.replyOf(packet.RST|packet.ACK, ""))
		wantOutcome(first.t, got, rig.Drop, maps.VerdictLateAnswer)
		second.forward(packet.ACK, "")
		got = first.backendSays(first.replyOf(packet.RST|packet.ACK, ""))
		if got.Verdict == maps.VerdictReplyLocal || got.Verdict == maps.VerdictReplyRemote {
			first.t.Errorf("the late refusal: %s", got.Verdict)
		}
		second.goOn()
		second.wantState(established)
		second.wantConnections(1, 0)
		first.wantConnections(0, 0)
	})
}

// The one it is with by now is heard.
func TestARefusalOfTheBackendTheClientCameToLastIsHeard(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(first *conversation) {
		first.forward(packet.SYN, "")
		second := first.succeed()
		second.forward(packet.SYN, "")
		second.reply(packet.RST|packet.ACK, "")
		third := second.succeed()
		third.backend = otherBackend(second.backend)
		third.begin()
		third.goOn()
		third.wantConnections(1, 0)
	})
}
