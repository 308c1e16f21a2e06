package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// More flows than there is room for: who is established stays so.

// tiny has room for so few flows that a test can establish them all.
var tiny = rig.Config{Sizes: maps.Sizes{Flows: 32, HalfOpen: 256}}

// crammed establishes flows until there is no room for another.
func (c *conversation) crammed() (all []*conversation) {
	c.t.Helper()
	for range tiny.Sizes.Flows {
		next := c.another(withPort(c.f.client, uint16(50000+len(all))))
		if got := next.run(next.hook, next.first()); got.Verdict == maps.VerdictMapFull {
			return all
		}
		next.begin()
		all = append(all, next)
	}
	c.t.Fatalf("there is no end to flows; %d entries", countFlows(c.t, c.r.Set.Flows()))
	return nil
}

func TestWithoutRoomNewFlowsAreRefusedAndOldOnesGoOn(t *testing.T) {
	t.Parallel()
	r := lendWith(t, tiny)
	everyTalk(t, r, func(c *conversation) {
		all := c.crammed()
		if n := countFlows(c.t, r.Set.Flows()); n > int(tiny.Sizes.Flows) || n < int(tiny.Sizes.Flows)*3/4 {
			c.t.Errorf("%d entries in flows, and there is room for %d", n, tiny.Sizes.Flows)
		}
		for i := range uint16(4) {
			later := c.another(withPort(c.f.client, 60000+i))
			later.wantVerdict(opening(c.proto), rig.Drop, maps.VerdictMapFull)
			later.wantState(unknown)
		}
		for _, e := range all {
			e.goOn()
		}
		all[0].wantState(established)
	})
}

// It is translated from where it is, and moves once there is room.
func TestAHandshakeThatFindsNoRoomGoesOnHalfOpen(t *testing.T) {
	t.Parallel()
	r := lendWith(t, tiny)
	everyTalk(t, r, func(c *conversation) {
		waiting := c.another(withPort(c.f.client, 60000))
		waiting.forward(opening(c.proto), "")
		all := c.crammed()
		waiting.reply(opening(c.proto)|packet.ACK, "")
		waiting.forward(packet.ACK, "")
		waiting.goOn()
		waiting.wantState(halfOpen)
		all[0].forget()
		all[1].forget()
		r.Age(c.t, 3)
		waiting.goOn()
		waiting.wantState(established)
		waiting.goOn()
	})
}

func TestOnceAFlowEndsThereIsRoomForAnother(t *testing.T) {
	t.Parallel()
	r := lendWith(t, tiny)
	everyConnection(t, r, func(c *conversation) {
		all := c.crammed()
		all[3].end(ends["client's RST"](c.proto))
		r.Age(c.t, 3)
		later := c.another(withPort(c.f.client, 60000))
		later.begin()
		later.goOn()
		later.wantState(established)
	})
}

// Nobody else comes to look: the agent may be away.
func TestFlowsThatAreOverMakeRoomWithoutAnAgent(t *testing.T) {
	t.Parallel()
	r := lendWith(t, tiny)
	everyTalk(t, r, func(c *conversation) {
		all := c.crammed()
		r.Age(c.t, ticks(r, 90_000))
		for i := range all {
			// The sweep may take more than one packet to come round.
			later := c.another(withPort(c.f.client, uint16(60000+i)))
			if got := later.run(later.hook, later.first()); got.Verdict != maps.VerdictMapFull {
				later.begin()
				later.goOn()
				return
			}
		}
		c.t.Fatal("flows that are over keep the map full")
	})
}
