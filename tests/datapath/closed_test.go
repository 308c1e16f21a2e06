package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// What is over leaves the map of established flows at once.

// ends are the ways a connection ends.
var ends = map[string]func(proto maps.Proto) []said{
	"FIN": func(proto maps.Proto) []said {
		if proto == maps.SCTP {
			return []said{{flags: packet.ACK, edit: func(s *packet.Spec) { s.Chunk = packet.ShutdownComplete }}}
		}
		return closes()
	},
	"client's RST":  func(maps.Proto) []said { return []said{{flags: packet.RST}} },
	"backend's RST": func(maps.Proto) []said { return []said{{byBackend: true, flags: packet.RST}} },
}

// end ends the connection of c.
func (c *conversation) end(talk []said) {
	c.t.Helper()
	for _, s := range talk {
		in := c.spec(c.f.client, c.f.vip, s.flags, s.payload)
		if s.byBackend {
			in = c.replyOf(s.flags, s.payload)
		}
		if s.edit != nil {
			s.edit(&in)
		}
		c.say(in)
	}
}

func everyEnd(t *testing.T, r *rig.Rig, fn func(c *conversation, end []said)) {
	t.Helper()
	for name, talk := range ends {
		t.Run(name, func(t *testing.T) {
			everyConnection(t, r, func(c *conversation) { fn(c, talk(c.proto)) })
		})
	}
}

func TestAConnectionThatIsOverIsNotAmongTheEstablished(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyEnd(t, r, func(c *conversation, end []said) {
		c.begin()
		c.goOn()
		c.wantState(established)
		c.end(end)
		c.wantState(closed)
		c.wantConnections(1, 1)
		c.wantLive(0)
	})
}

// The last ACK, a FIN sent again, data that was under way.
func TestLatePacketsOfAConnectionThatIsOverAreTranslated(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyEnd(t, r, func(c *conversation, end []said) {
		c.begin()
		c.end(end)
		for range 2 {
			c.end(end)
		}
		c.wantState(closed)
		c.wantConnections(1, 1)
	})
}

// Ten times as many as there is room for, of any kind.
func TestConnectionsThatEndEvictNoEstablishedFlow(t *testing.T) {
	t.Parallel()
	r := lendWith(t, small)
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			someLocal(t, r, connections, func(c *conversation) { c.crowdOut(end(c.proto)) })
		})
	}
}

// crowdOut has ten times as many connections end as there is room for.
func (c *conversation) crowdOut(end []said) {
	c.t.Helper()
	all := c.company(20)
	n := many(10 * int(small.Sizes.Flows))
	verdicts := c.hear(c.f.crowd(n), append(opens(c.proto), end...)...)
	for v := range verdicts {
		if v != maps.VerdictToLocal && v != maps.VerdictReplyLocal {
			c.t.Errorf("verdicts %v", verdicts)
			break
		}
	}
	if got := countFlows(c.t, c.r.Set.Flows()); got != 2*len(all) {
		c.t.Errorf("%d entries in flows, want the %d of the established flows", got, 2*len(all))
	}
	c.wantConnections(uint64(len(all)+n), uint64(n))
	wantAlive(all)
}

// It is of an old connection, or forged: the client has begun nothing.
func TestASYNACKNeverTravelsByAConnectionThatIsOver(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyEnd(t, r, func(c *conversation, end []said) {
		c.begin()
		c.end(end)
		got := c.backendSays(c.replyOf(packet.SYN|packet.ACK, ""))
		if got.Verdict == maps.VerdictReplyLocal || got.Verdict == maps.VerdictReplyRemote {
			c.t.Errorf("the SYN-ACK: %s", got.Verdict)
		}
		c.wantConnections(1, 1)
	})
}

// With the same backend, and with the one the table leads to by then.
func TestAClientMayBeginAnewRightAfterTheEnd(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyEnd(t, r, func(c *conversation, end []said) {
		c.begin()
		c.end(end)
		for n := range uint64(3) {
			c.snat = 0
			c.begin()
			c.wantState(established)
			c.goOn()
			c.wantConnections(2+n, 1+n)
			c.end(end)
			c.wantConnections(2+n, 2+n)
		}
		next := c.succeed()
		next.begin()
		next.goOn()
		next.wantConnections(1, 0)
		next.wantLive(1) // what the old backend still says is translated, too
	})
}

// The client has taken its SYN back: what the old connection had is over.
func TestABeginningThatIsGivenUpLeavesTheOldOneClosed(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyEnd(t, r, func(c *conversation, end []said) {
		c.begin()
		c.end(end)
		c.snat = 0
		c.forward(packet.SYN, "")
		c.forward(packet.RST, "")
		c.wantConnections(1, 1)
		c.wantLive(0)
		c.snat = 0
		c.begin()
		c.goOn()
		c.wantConnections(2, 1)
	})
}
