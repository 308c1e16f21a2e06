package datapath

import (
	gomaps "maps"
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// small has maps that are soon full.
var small = rig.Config{Sizes: maps.Sizes{Flows: 256, HalfOpen: 256}}

// A flood of SYNs, or INITs, of ten times the size of half_open evicts other handshakes only.
func TestASYNFloodLeavesEstablishedFlowsAlone(t *testing.T) {
	t.Parallel()
	r := lendWith(t, small)
	everyConnection(t, r, func(c *conversation) {
		if !c.local {
			return
		}
		c.handshake()
		flood(c, 10*int(small.Sizes.HalfOpen))
		c.forward(packet.PSH|packet.ACK, "still here")
		c.reply(packet.PSH|packet.ACK, "so am I")
		if n := countFlows(c.t, r.Set.Flows()); n != 2 {
			c.t.Errorf("%d entries in flows, want the 2 of the established flow", n)
		}
		later := newConversation(c.t, r, c.hook, withClient(c.f, 40002), c.proto, true)
		later.handshake()
	})
}

func withClient(f family, port uint16) family {
	f.client = netip.AddrPortFrom(f.client.Addr(), port)
	return f
}

// flood sends n SYNs, each of a client of its own, to the service of c.
func flood(c *conversation, n int) {
	c.t.Helper()
	frames := make([][]byte, n)
	addr := c.f.client.Addr()
	for i := range frames {
		if i%1000 == 0 {
			addr = addr.Next()
		}
		src := netip.AddrPortFrom(addr, uint16(1024+i%1000))
		frames[i] = frame(c.t, c.spec(src, c.f.vip, packet.SYN, ""))
	}
	c.wantFlood(frames, maps.VerdictToLocal)
}

// wantFlood sends frames and checks that all had that verdict.
func (c *conversation) wantFlood(frames [][]byte, v maps.Verdict) {
	c.t.Helper()
	got := c.r.Flood(c.t, c.hook, frames)
	if want := (map[maps.Verdict]uint64{v: uint64(len(frames))}); !gomaps.Equal(got, want) {
		c.t.Fatalf("verdicts %v, want %v", got, want)
	}
}

func countFlows(t *testing.T, m maps.Flows) int {
	t.Helper()
	n := 0
	err := m.Each(func(maps.FlowKey, maps.Flow) bool { n++; return true })
	if err != nil {
		t.Fatal(err)
	}
	return n
}
