package datapath

import (
	"context"
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/agent/flows"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// live is how many connections the agent finds at the backend of c.
func (c *conversation) live() int {
	c.t.Helper()
	collector := flows.Collector{
		Flows: c.r.Set.Flows(), HalfOpen: c.r.Set.HalfOpen(),
		Clock: c.r.Clock, Timeouts: flows.DefaultTimeouts(),
	}
	report, err := collector.Collect(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	return report.Live[flows.Owner{ID: c.id, Generation: 1}]
}

func (c *conversation) wantLive(n int) {
	c.t.Helper()
	if got := c.live(); got != n {
		c.t.Fatalf("%d live connections, want %d", got, n)
	}
}

func TestTheAgentCountsWhatIsLive(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		c.wantLive(0)
		c.forward(packet.ACK, "")
		c.wantLive(1)
		c.forward(packet.FIN|packet.ACK, "")
		c.wantLive(1)
		c.reply(packet.FIN|packet.ACK, "")
		c.wantLive(0)
		c.handshake() // the same tuple again
		c.goOn()
		c.wantLive(1)
		c.forward(packet.RST|packet.ACK, "")
		c.wantLive(0)
		c.forward(packet.PSH|packet.ACK, "that was not me")
		c.wantLive(1)
	})
}

func TestLiveCountsAreRightAgainOnceAHalfIsRestored(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		c.goOn()
		c.evict(c.reverseKey())
		c.wantLive(1)
		c.age(c.forwardKey())
		c.forward(packet.ACK, "")
		c.wantLive(1)
		c.evict(c.forwardKey())
		c.age(c.reverseKey())
		c.reply(packet.ACK, "")
		c.wantLive(1)
	})
}

func TestAFloodOfSYNsIsNotLive(t *testing.T) {
	t.Parallel()
	r := lendWith(t, small)
	everyConnection(t, r, func(c *conversation) {
		if !c.local {
			return
		}
		c.handshake()
		flood(c, 2*int(small.Sizes.HalfOpen))
		c.wantLive(1)
		c.wantConnections(1, 0)
	})
}

// More flows than there is room for: what is counted live is what is there.
func TestEvictedFlowsAreNotLive(t *testing.T) {
	t.Parallel()
	room := int(small.Sizes.Flows)
	r := lendWith(t, small)
	everyConversation(t, r, maps.UDP, func(c *conversation) {
		if !c.local {
			return
		}
		frames := make([][]byte, 2*room)
		addr := c.f.client.Addr()
		for i := range frames {
			addr = addr.Next()
			frames[i] = frame(c.t, c.spec(netip.AddrPortFrom(addr, 5000), c.f.vip, 0, ""))
		}
		c.wantFlood(frames, maps.VerdictToLocal)
		c.wantConnections(uint64(2*room), 0)
		if n := c.live(); n == 0 || n > room {
			t.Errorf("%d live flows in %d entries", n, room)
		}
	})
}
