package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// The datapath keeps both halves of an established flow together. Should one be lost
// all the same, the other brings it back.

func TestTheClientsNextPacketFindsItsEvictedHalfAgain(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		c.goOn()
		reverse := c.entry(c.reverseKey())
		c.evict(c.forwardKey())
		c.goOn()               // by the same port to the same backend
		if proto == maps.UDP { // cannot be told from the first of a new flow
			c.goOn()
		} else {
			c.wantConnections(1, 0)
			c.wantLive(1)
		}
		c.wantState(established)
		c.wantFlags(0, reverse.Flags&^(maps.FlowReverse|placeFlags))
	})
}

// The service has moved on, so only the other half knows the way.
func TestTheBackendsHalfRestoresTheClientsOnceATick(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		c.goOn()
		before := c.entry(c.forwardKey())
		c.evict(c.forwardKey())
		next := c.succeed()
		c.age(c.reverseKey())
		c.reply(packet.PSH|packet.ACK, "data")
		after := c.entry(c.forwardKey())
		if after.Src != before.Src || after.Dst != before.Dst || after.Backend != before.Backend || after.Generation != before.Generation {
			t.Errorf("restored as %+v, was %+v", after, before)
		}
		c.goOn()
		next.wantConnections(0, 0)
		c.wantConnections(1, 0)
	})
}

func TestTheClientsHalfRestoresTheBackendsOnceATick(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		c.goOn()
		c.evict(c.reverseKey())
		c.age(c.forwardKey())
		c.forward(packet.PSH|packet.ACK, "data")
		c.reply(packet.PSH|packet.ACK, "data")
		c.goOn()
		c.wantConnections(1, 0)
	})
}

// They need both halves, so they do not wait for the tick. What a half restored
// so late does not know is what was acknowledged: two FINs are believed whatever
// their numbers, an RST is not until the other side has spoken.
func TestFINsRestoreTheOtherHalfAtOnce(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.handshake()
		c.evict(c.reverseKey())
		in := c.spec(c.f.client, c.f.vip, packet.FIN|packet.ACK, "")
		in.Seq += 1 << 31
		c.forwardSpec(in)
		c.evict(c.forwardKey())
		in = c.replyOf(packet.FIN|packet.ACK, "")
		in.Seq += 1 << 31
		c.replySpec(in)
		c.wantState(closed)
		c.wantConnections(1, 1)
	})
}

func TestAnRSTRestoresTheOtherHalfAndIsBelievedOnceThatHasSpoken(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.handshake()
		c.evict(c.reverseKey())
		in := c.spec(c.f.client, c.f.vip, packet.RST, "")
		in.Seq += 1 << 31
		c.forwardSpec(in)
		c.wantState(established)
		c.reply(packet.ACK, "")
		c.forwardSpec(in)
		c.wantState(established)
		c.forward(packet.RST, "")
		c.wantState(closed)
		c.wantConnections(1, 1)
	})
}

// lose removes one half of a closed connection, as the kernel does when the map is
// full.
func (c *conversation) lose(k maps.FlowKey) {
	c.t.Helper()
	c.wantState(closed)
	if err := c.r.Set.Closed().Delete(k); err != nil {
		c.t.Fatal(err)
	}
}

// Whichever half is lost of a closed connection, and whoever speaks then.
func TestAClosedConnectionThatLostAHalfDoesNotCloseAgain(t *testing.T) {
	t.Parallel()
	speakers := map[string]func(c *conversation){
		"backend's FIN":    func(c *conversation) { c.backendSays(c.replyOf(packet.FIN|packet.ACK, "")) },
		"backend's RST":    func(c *conversation) { c.backendSays(c.replyOf(packet.RST, "")) },
		"client's FIN":     func(c *conversation) { c.forward(packet.FIN|packet.ACK, "") },
		"client's RST":     func(c *conversation) { c.forward(packet.RST, "") },
		"backend's packet": func(c *conversation) { c.backendSays(c.replyOf(packet.ACK, "")) },
	}
	r := lend(t)
	for name, speak := range speakers {
		t.Run(name, func(t *testing.T) {
			everyEnd(t, r, func(c *conversation, end []said) {
				c.begin()
				c.end(end)
				c.lose(c.forwardKey())
				speak(c)
				c.backendSays(c.replyOf(packet.RST, ""))
				if n := c.counts(); n.Opened-n.Closed != uint64(c.live()) {
					c.t.Errorf("%d opened, %d closed, and %d are live", n.Opened, n.Closed, c.live())
				}
			})
		})
	}
}

func TestAConnectionReopenedAfterItLostAHalfClosesAgain(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.handshake()
		c.forward(packet.RST|packet.ACK, "")
		c.lose(c.reverseKey())
		c.forward(packet.PSH|packet.ACK, "that was not me")
		c.wantState(established)
		c.goOn()
		c.wantLive(1)
		c.closeByFIN()
		c.wantState(closed)
		c.wantLive(0)
	})
}

// Another flow took the tuple while this half did not know it was alone.
func TestAHalfWhoseTupleHasANewOwnerIsDropped(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		c.goOn()
		owner := c.usurp()
		c.age(c.forwardKey())
		c.wantVerdict(packet.ACK, rig.Drop, maps.VerdictFlowConflict)
		if _, ok := c.lookup(c.forwardKey()); ok {
			t.Error("the half without its tuple is still there")
		}
		if got := c.entry(c.reverseKey()); got != owner {
			t.Errorf("the new owner's half is now %+v, was %+v", got, owner)
		}
	})
}

func TestAHalfWhoseTupleHasANewOwnerClosesNothingOfIt(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.handshake()
		owner := c.usurp()
		got := c.run(c.hook, c.spec(c.f.client, c.f.vip, packet.RST|packet.ACK, ""))
		// In another tick than the handshake it also notices that it is alone.
		if got.Verdict != c.toBackend() && (got.Verdict != maps.VerdictFlowConflict || c.lasts(c.forwardKey())) {
			t.Errorf("got %s", got.Verdict)
		}
		if got := c.entry(c.reverseKey()); got != owner {
			t.Errorf("the new owner's half is now %+v, was %+v", got, owner)
		}
		c.wantConnections(1, 0)
	})
}

// toBackend is the verdict of what goes to the backend.
func (c *conversation) toBackend() maps.Verdict {
	if c.local {
		return maps.VerdictToLocal
	}
	return maps.VerdictToRemote
}

// lasts reports whether there is still an entry.
func (c *conversation) lasts(k maps.FlowKey) bool {
	c.t.Helper()
	_, ok := c.lookup(k)
	return ok
}

// usurp gives the reverse tuple of c to a flow of another client.
func (c *conversation) usurp() maps.Flow {
	c.t.Helper()
	owner := c.entry(c.reverseKey())
	owner.Dst = withClient(c.f, c.f.client.Port()+1).client
	if err := c.r.Set.Flows().Put(c.reverseKey(), owner); err != nil {
		c.t.Fatal(err)
	}
	return owner
}

// The same client port towards two frontends of one backend: only one of the
// flows can keep it. Were a half lost, the second takes it and the first notices.
func TestAClientMayUseOnePortForTwoFrontendsOfABackend(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		first := newConversation(t, r, hook, f, proto, local).serve()
		first.begin()
		if !local {
			first.goOn()
		}
		f.vip = otherVIP(f)
		second := newConversation(t, r, hook, f, proto, local).serve()
		got := second.run(hook, second.spec(f.client, f.vip, opening(proto), ""))
		if got.Verdict != maps.VerdictToLocal && got.Verdict != maps.VerdictToRemote {
			t.Fatalf("the second frontend: %s", got.Verdict)
		}
		port := sourcePort(t, got.Frame, second.spec(f.client, f.vip, opening(proto), ""))
		if port == first.replyOf(0, "").Dst.Port() {
			t.Errorf("both flows reach the backend from port %d", port)
		}
		first.goOn()
	})
}

func TestAFlowWhoseTupleWasTakenWhileItsHalfWasGoneBeginsAnew(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyPlace(t, r, func(t *testing.T, hook maps.Hook, f family, local bool) {
		if !local {
			return
		}
		first := newConversation(t, r, hook, f, maps.UDP, local).serve()
		first.begin()
		first.evict(first.reverseKey())
		other := f
		other.vip = otherVIP(f)
		second := newConversation(t, r, hook, other, maps.UDP, local).serve()
		second.begin()
		first.age(first.forwardKey())
		first.wantVerdict(0, rig.Drop, maps.VerdictFlowConflict)
		first.wantVerdict(0, rig.Pass, maps.VerdictToLocal)
		second.goOn()
	})
}
