package datapath

import (
	"testing"
	"time"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// In every 16th tick XDP leaves the first packet of a flow to TC, so that the
// kernel confirms its neighbour; in the others none.
func TestXDPLeavesOnePacketIn16TicksToTheKernel(t *testing.T) {
	t.Parallel()
	r := lend(t)
	c := newConversation(t, r, maps.HookXDP, families[0], maps.TCP, false).serve()
	c.handshake()
	poll := time.NewTicker(r.Clock.Tick() / 8)
	defer poll.Stop()
	deadline := time.After(2 * confirmTicks * r.Clock.Tick())
	for seen := make(map[bool]bool); !seen[true] || !seen[false]; {
		if now, whole := c.inOneTick(); whole {
			seen[now%confirmTicks == 0] = true
		}
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("seen in ticks that are to be confirmed and not: %v", seen)
		}
	}
}

// inOneTick sends the first packet of a tick and another one, and checks both if
// they fell into one.
func (c *conversation) inOneTick() (now uint32, whole bool) {
	c.t.Helper()
	now = tick(c.t, c.r)
	in := frame(c.t, c.spec(c.f.client, c.f.vip, packet.ACK, "x"))
	c.age(c.forwardKey())
	first := send(c.t, c.r, c.hook, in, rig.Context{})
	second := send(c.t, c.r, c.hook, in, rig.Context{})
	if now != tick(c.t, c.r) {
		return now, false
	}
	want := maps.VerdictToRemote
	if now%confirmTicks == 0 {
		want = maps.VerdictLeftToTC
	}
	if first.Verdict != want || second.Verdict != maps.VerdictToRemote {
		c.t.Fatalf("tick %d: %s, then %s; want %s, then %s", now, first.Verdict, second.Verdict, want, maps.VerdictToRemote)
	}
	return now, true
}
