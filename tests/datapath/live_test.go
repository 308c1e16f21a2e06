package datapath

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// live is how many connections of the backend of c are established.
func (c *conversation) live() (n int) {
	c.t.Helper()
	err := c.r.Set.Flows().Each(func(_ maps.FlowKey, f maps.Flow) bool {
		if f.Backend == c.id && f.Flags&maps.FlowReverse == 0 {
			n++
		}
		return true
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// wantLive checks how many there are, and that the datapath has counted them.
func (c *conversation) wantLive(n int) {
	c.t.Helper()
	if got := c.live(); got != n {
		c.t.Fatalf("%d live connections, want %d", got, n)
	}
	if done := c.counts(); done.Opened-done.Closed != uint64(n) {
		c.t.Fatalf("%d connections opened and %d closed, want %d live", done.Opened, done.Closed, n)
	}
}

func TestLiveCountsAreExactWhateverHappens(t *testing.T) {
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

func TestAFloodOfDatagramsIsNotLive(t *testing.T) {
	t.Parallel()
	r := lendWith(t, small)
	everyConversation(t, r, maps.UDP, func(c *conversation) {
		if !c.local {
			return
		}
		c.begin()
		crowd := c.f.crowd(2 * int(small.Sizes.Flows))
		verdicts := c.hear(crowd, said{}, said{byBackend: true})
		if verdicts[maps.VerdictToLocal] != uint64(len(crowd)) || verdicts[maps.VerdictReplyLocal] != uint64(len(crowd)) {
			c.t.Errorf("verdicts %v", verdicts)
		}
		c.wantLive(1)
	})
}

// Silence ends a flow, too; the datapath says when.
func TestFlowsThatAreSilentForTooLongAreCollectedAndNotLive(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, claimant := range claimants {
		t.Run(name, func(t *testing.T) {
			everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
				if !slices.Contains(claimant.protos, proto) || claimant.kept == 0 {
					return
				}
				c := newConversation(t, r, hook, f, proto, local).serve()
				claimant.leave(c)
				before := c.found()
				r.Age(t, ticks(r, claimant.kept))
				r.Collect(t)
				if d := cmp.Diff(before, c.found(), cmp.AllowUnexported(entries{})); d != "" {
					t.Fatalf("%d s later:\n%s", claimant.kept, d)
				}
				r.Age(t, ticks(r, claimant.gone-claimant.kept)+1)
				r.Collect(t)
				c.wantState(unknown)
				c.wantLive(0)
			})
		})
	}
}

// One direction is enough, whichever it is.
func TestAFlowThatIsHeardInOneDirectionIsNotCollected(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyTalk(t, r, func(c *conversation) {
		c.stream()
		for _, speak := range []func(){func() { c.forward(packet.ACK, "x") }, func() { c.reply(packet.ACK, "y") }} {
			for range 3 {
				r.Age(c.t, ticks(r, timeouts[c.proto]*3/4))
				speak()
				r.Collect(c.t)
				c.wantState(established)
			}
		}
		c.wantLive(1)
		c.goOn()
	})
}
