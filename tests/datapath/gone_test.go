package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Connections whose backend is gone, with --on-backend-gone=reset.

func TestAConnectionWhoseBackendIsGoneIsReset(t *testing.T) {
	t.Parallel()
	r := lendWith(t, answering)
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			everyConversation(t, r, maps.TCP, func(c *conversation) {
				c.handshake()
				c.goOn()
				lose(c)
				before := c.counts()
				for _, flags := range []packet.Flags{packet.PSH | packet.ACK, packet.FIN | packet.ACK} {
					in := c.spec(c.f.client, c.f.vip, flags, "are you there?")
					c.wantAnswer(plain(in), maps.VerdictBackendGone, packet.Reset)
				}
				c.wantClosed(before, true) // with its index, whoever has that by now
			})
		})
	}
}

// wantClosed checks that TC closed the connection, and counted that once, for
// its backend and for nobody else.
func (c *conversation) wantClosed(before maps.BackendCounts, counted bool) {
	c.t.Helper()
	if c.onXDP() {
		return // TC does so
	}
	c.wantState(closed)
	want := before.Closed
	if counted {
		want++
	}
	if got := c.counts().Closed; got != want {
		c.t.Errorf("%d connections closed, want %d", got, want)
	}
}

// Between two CPUs a RST may be lost; the client's next segment brings another.
// A SYN is a new connection.
func TestAClientThatWasResetMayComeAgain(t *testing.T) {
	t.Parallel()
	r := lendWith(t, answering)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.handshake()
		c.setState(maps.Gone)
		next := c.succeed()
		for range 3 {
			c.wantAnswer(plain(c.spec(c.f.client, c.f.vip, packet.ACK, "x")), maps.VerdictBackendGone, packet.Reset)
		}
		next.begin()
		next.goOn()
		next.wantConnections(1, 0)
	})
}

// It is told to the backend, should it be there.
func TestAClientsOwnRSTIsNotAnswered(t *testing.T) {
	t.Parallel()
	r := lendWith(t, answering)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.handshake()
		c.setState(maps.Gone)
		c.forward(packet.RST|packet.ACK, "")
	})
}

func TestWhatAGoneBackendSaysReachesItsClient(t *testing.T) {
	t.Parallel()
	for name, reset := range map[string]bool{"keep": false, "reset": true} {
		t.Run(name, func(t *testing.T) {
			r := lendWith(t, withAnswers(reset))
			everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
				c := newConversation(t, r, hook, f, proto, local).serve()
				c.begin()
				c.setState(maps.Gone)
				c.reply(packet.PSH|packet.ACK, "my last words")
				c.age(c.reverseKey())
				c.reply(packet.PSH|packet.ACK, "or nearly so")
			})
		})
	}
}

// Once its client is with another, it is not heard.
func TestAGoneBackendIsNotHeardBesideItsSuccessor(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.UDP, func(c *conversation) {
		c.begin()
		c.reply(0, "answer")
		c.setState(maps.Gone)
		next := c.succeed()
		next.begin()
		got := c.backendSays(c.replyOf(0, "late"))
		if c.local {
			wantOutcome(c.t, got, rig.Pass, maps.VerdictNotService)
		} else {
			wantOutcome(c.t, got, rig.Drop, maps.VerdictSNATUnknown)
		}
		next.goOn()
	})
}

// Datagrams leave a backend that does not serve for one that does; the agent
// says so only while there is one.
func TestADatagramLeavesABackendThatDoesNotServe(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		c.setState(maps.Draining)
		next := c.succeed()
		c.goOn()
		c.putBackend(func(b *maps.Backend) { b.Unserving = true })
		if proto != maps.UDP {
			c.goOn()
			return
		}
		next.begin()
		next.goOn()
		next.wantConnections(1, 0)
	})
}

// A pod may get the address of one that has gone, and its port: the client's
// flow is then the new backend's, with all that is counted.
func TestADatagramToABackendWithTheAddressOfAGoneOneIsANewFlow(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for _, lost := range []string{"forward", "none"} {
		t.Run(lost+" half lost", func(t *testing.T) {
			everyConversation(t, r, maps.UDP, func(c *conversation) {
				c.begin()
				if lost == "forward" {
					c.evict(c.forwardKey())
				}
				c.setState(maps.Gone)
				next := newConversation(c.t, c.r, c.hook, c.f, c.proto, c.local).serve()
				next.begin()
				next.goOn()
				next.wantConnections(1, 0)
				if got := next.counts(); got.RxPackets != 2 {
					c.t.Errorf("%d packets counted from the new backend, want 2", got.RxPackets)
				}
				if got := next.entry(next.reverseKey()); got.Backend != next.id {
					c.t.Errorf("the reverse half is backend %d's, want %d's", got.Backend, next.id)
				}
			})
		})
	}
}
