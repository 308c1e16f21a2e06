package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// A handshake is finished by who has heard the backend, and by nobody else.

// guesses are what a client's first ACK, or COOKIE ECHO, may have got wrong.
var guesses = map[string]func(*packet.Spec){
	"anything":       blind,
	"nothing":        func(s *packet.Spec) { s.Ack, s.Tag = 0, 0 },
	"one before":     func(s *packet.Spec) { s.Ack--; s.Tag-- },
	"one after":      func(s *packet.Spec) { s.Ack++; s.Tag++ },
	"half the range": func(s *packet.Spec) { s.Ack += 1 << 31; s.Tag += 1 << 31 },
	"its own number": func(s *packet.Spec) { s.Ack, s.Tag = s.Seq, clientTag },
}

// It goes to the backend, which answers it with a RST or ABORT.
func TestBlindACKsPromoteNothing(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, guess := range guesses {
		t.Run(name, func(t *testing.T) {
			everyConnection(t, r, func(c *conversation) {
				c.forward(packet.SYN, "")
				c.reply(packet.SYN|packet.ACK, "")
				for _, payload := range []string{"", "and data"} {
					in := c.spec(c.f.client, c.f.vip, packet.ACK, payload)
					guess(&in)
					c.forwardSpec(in)
					c.wantState(halfOpen)
				}
				c.wantConnections(0, 0)
				c.wantLive(0)
				c.forward(packet.ACK, "")
				c.wantState(established)
				c.wantConnections(1, 0)
				c.goOn()
			})
		})
	}
}

// A spoofer knows when the backend answers, but not what.
func TestFloodsOfBlindHandshakesEvictNoEstablishedFlow(t *testing.T) {
	t.Parallel()
	r := lendWith(t, small)
	floods := map[string]func(proto maps.Proto) []said{
		"SYN": func(maps.Proto) []said { return []said{{flags: packet.SYN}} },
		"SYN, ACK": func(maps.Proto) []said {
			return []said{{flags: packet.SYN}, {flags: packet.ACK, edit: blind}}
		},
		"SYN, SYN-ACK": func(proto maps.Proto) []said { return opens(proto)[:2] },
		"SYN, SYN-ACK, ACK": func(proto maps.Proto) []said {
			return append(opens(proto)[:2], said{flags: packet.ACK, edit: blind})
		},
		"SYN, SYN-ACK, data": func(proto maps.Proto) []said {
			return append(opens(proto)[:2], said{flags: packet.ACK, payload: "GET /", edit: blind})
		},
		"ACK": func(maps.Proto) []said { return []said{{flags: packet.ACK, edit: blind}} },
	}
	for name, talk := range floods {
		t.Run(name, func(t *testing.T) {
			someLocal(t, r, connections, func(c *conversation) {
				all := c.company(10)
				c.hear(c.f.crowd(many(5*int(small.Sizes.Flows))), talk(c.proto)...)
				if n := countFlows(c.t, r.Set.Flows()); n != 2*len(all) {
					c.t.Errorf("%d entries in flows, want the %d of the established flows", n, 2*len(all))
				}
				c.wantConnections(uint64(len(all)), 0)
				wantAlive(all)
				c.another(withPort(c.f.client, 60000)).handshake()
			})
		})
	}
}

// The backend goes on only when the client has: its ACK took another way, or
// was lost behind us.
func TestTheBackendsDataFinishesTheHandshake(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		c.reply(packet.SYN|packet.ACK, "")
		c.wantState(halfOpen)
		c.reply(packet.PSH|packet.ACK, "220 ready")
		c.wantState(established)
		c.wantConnections(1, 0)
		c.goOn()
	})
}

// Somebody answers a SYN that was another one.
func TestASYNACKForAnotherSYNEstablishesNothing(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		c.forward(packet.SYN, "")
		in := c.replyOf(packet.SYN|packet.ACK, "")
		blind(&in)
		c.backendSays(in)
		c.run(c.hook, c.spec(c.f.client, c.f.vip, packet.ACK, ""))
		c.wantConnections(0, 0)
		if found := c.found(); found[established] != (entries{}) {
			c.t.Fatalf("the flow is in %v", found)
		}
		c.handshake()
		c.goOn()
		c.wantConnections(1, 0)
	})
}

// The backend's next SYN-ACK may have other numbers: it has restarted.
func TestTheLastSYNACKSaysWhatFinishesTheHandshake(t *testing.T) {
	t.Parallel()
	const later = 5000
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		again := c.replyOf(packet.SYN|packet.ACK, "")
		again.Seq += later
		c.replySpec(again)
		c.forward(packet.ACK, "")
		c.wantState(halfOpen)
		in := c.spec(c.f.client, c.f.vip, packet.ACK, "")
		in.Ack += later
		c.forwardSpec(in)
		c.wantState(established)
		c.wantConnections(1, 0)
	})
}

// Somebody sends an INIT in the client's name before it does, and both are answered.
func TestAForgedINITBeforeTheClientsDoesNotKeepItsAssociationUnproved(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.SCTP, func(c *conversation) {
		forged := c.spec(c.f.client, c.f.vip, packet.SYN, "")
		forged.InitTag++
		c.forwardSpec(forged)
		c.forward(packet.SYN, "")
		answer := c.replyOf(packet.SYN|packet.ACK, "")
		answer.Tag++
		answer.InitTag++
		c.replySpec(answer)
		c.reply(packet.SYN|packet.ACK, "")
		c.forward(packet.ACK, "")
		c.reply(packet.ACK, "")
		c.wantState(established)
		c.wantConnections(1, 0)
		c.goOn()
		c.end(ends["backend's RST"](c.proto))
		c.wantState(closed)
	})
}

// A backend in SYN-RECEIVED answers a SYN with another number by acknowledging the
// first once more. Who sends both, in whatever order of numbers, proves nothing.
func TestTheAnswerToASecondSYNProvesNothing(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, later := range map[string]uint32{"greater": 5000, "smaller": ^uint32(4999)} {
		t.Run(name, func(t *testing.T) {
			everyConversation(t, r, maps.TCP, func(c *conversation) {
				c.forward(packet.SYN, "")
				c.reply(packet.SYN|packet.ACK, "")
				again := c.spec(c.f.client, c.f.vip, packet.SYN, "")
				again.Seq += later
				c.forwardSpec(again)
				c.reply(packet.ACK, "")
				c.wantState(halfOpen)
				c.wantConnections(0, 0)
				c.forward(packet.ACK, "")
				c.wantState(established)
			})
		})
	}
}
