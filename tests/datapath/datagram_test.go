package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// A flow of datagrams is proved by the client that goes on after an answer.

func TestAQuestionAndItsAnswerEstablishNothing(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.UDP, func(c *conversation) {
		c.forward(0, "question")
		c.wantState(halfOpen)
		c.reply(0, "answer")
		c.reply(0, "more of it")
		c.wantState(halfOpen)
		c.wantConnections(0, 0)
		c.wantLive(0)
		c.forward(0, "another question")
		c.wantState(established)
		c.wantConnections(1, 0)
		c.wantLive(1)
		c.goOn()
	})
}

func TestUnansweredDatagramsEstablishNothing(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.UDP, func(c *conversation) {
		for range 5 {
			c.forward(0, "anybody there?")
			c.wantState(halfOpen)
		}
		c.wantConnections(0, 0)
		c.wantLive(0)
	})
}

// Metrics, syslog: nobody answers, and the order of backends is not to matter.
func TestAStreamNobodyAnswersStaysWithItsBackend(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.UDP, func(c *conversation) {
		c.forward(0, "one")
		c.forward(0, "two")
		next := c.succeed()
		for range 3 {
			c.r.Age(c.t, 1)
			c.forward(0, "and so on")
		}
		c.wantState(halfOpen)
		next.wantConnections(0, 0)
	})
}

// Whoever has answered is the one, whatever the table says by the next question.
func TestAClientGoesOnWithTheBackendThatAnsweredIt(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.UDP, func(c *conversation) {
		c.forward(0, "question")
		c.reply(0, "answer")
		next := c.succeed()
		c.forward(0, "another question")
		c.wantState(established)
		c.wantConnections(1, 0)
		next.wantConnections(0, 0)
		c.goOn()
	})
}

// Floods, and what every cluster does all day: names are looked up.
func TestFloodsOfDatagramsEvictNoEstablishedFlow(t *testing.T) {
	t.Parallel()
	r := lendWith(t, small)
	floods := map[string][]said{
		"first datagrams":            {{}},
		"two datagrams each":         {{}, {}},
		"questions and answers":      {{}, {byBackend: true}},
		"questions and long answers": {{}, {byBackend: true}, {byBackend: true, payload: "more"}},
	}
	for name, talk := range floods {
		t.Run(name, func(t *testing.T) {
			someLocal(t, r, protos, func(c *conversation) {
				all := c.company(20)
				dns := newConversation(c.t, c.r, c.hook, withVIPPort(c.f, 53), maps.UDP, true).serve()
				dns.hear(c.f.crowd(many(5*int(small.Sizes.Flows))), talk...)
				if got := countFlows(c.t, r.Set.Flows()); got != 2*len(all) {
					c.t.Errorf("%d entries in flows, want the %d of the established flows", got, 2*len(all))
				}
				dns.wantConnections(0, 0)
				c.wantConnections(uint64(len(all)), 0)
				wantAlive(all)
			})
		})
	}
}

// The same to a backend elsewhere: of those only the first datagrams are sent.
func TestFloodsToABackendElsewhereEvictNoEstablishedFlow(t *testing.T) {
	t.Parallel()
	r := lendWith(t, small)
	for _, hook := range ingressHooks {
		for _, proto := range protos {
			t.Run(hook.String()+"/"+proto.String(), func(t *testing.T) {
				r.Reset(t)
				c := newConversation(t, r, hook, families[0], proto, false).serve()
				all := c.company(20)
				for _, proto := range protos {
					flood := newConversation(t, r, hook, withVIPPort(c.f, 99), proto, false).serve()
					flood.hear(c.f.crowd(many(5*int(small.Sizes.Flows))), said{flags: opening(proto)}, said{flags: packet.ACK, edit: blind})
					flood.wantConnections(0, 0)
				}
				wantAlive(all)
			})
		}
	}
}
