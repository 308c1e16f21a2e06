package datapath

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// losses are the ways a backend may be lost to its flows.
var losses = map[string]func(c *conversation){
	"gone": func(c *conversation) { c.setState(maps.Gone) },
	"its index given to another": func(c *conversation) {
		c.putBackend(func(b *maps.Backend) {
			b.Generation++
			b.Addr = netip.AddrPortFrom(b.Addr.Addr().Prev(), 9999)
		})
	},
}

func TestADatagramWhoseBackendIsLostGoesToAnother(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			everyConversation(t, r, maps.UDP, func(c *conversation) {
				c.begin()
				lose(c)
				before := c.counts()
				next := c.succeed()
				next.forward(0, "to you now")
				next.reply(0, "thank you")
				next.forward(0, "once more")
				if _, ok := c.lookup(c.reverseKey()); ok {
					t.Error("the lost backend's half is still there")
				}
				next.wantConnections(1, 0)
				before.Closed++ // it was established
				if d := cmp.Diff(before, c.counts()); d != "" {
					t.Errorf("counted for the lost backend, beside the end of the flow:\n%s", d)
				}
			})
		})
	}
}

func TestAConnectionStaysWithItsLostBackend(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			everyConnection(t, r, func(c *conversation) {
				c.handshake()
				lose(c)
				next := c.succeed()
				c.goOn()
				c.age(c.forwardKey())
				c.age(c.reverseKey())
				c.goOn()
				next.wantConnections(0, 0)
			})
		})
	}
}

func TestAFlowNeverCountsForTheNextOwnerOfItsIndex(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.handshake()
		losses["its index given to another"](c)
		before := c.counts()
		c.goOn()
		c.forward(packet.RST|packet.ACK, "")
		c.forward(packet.ACK, "not mine")
		c.closeByFIN()
		wantOnlyEnds(t, before, c.counts())
		c.wantLive(0)
	})
}

// wantOnlyEnds checks that of a flow only its beginning and end are counted at its
// index, whoever has that by now: the agent gives it away when no flow is left.
func wantOnlyEnds(t *testing.T, before, after maps.BackendCounts) {
	t.Helper()
	after.Opened, after.Closed = before.Opened, before.Closed
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("counted for the new owner:\n%s", d)
	}
}

func TestAHandshakeNeverCountsForTheNextOwnerOfItsIndex(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		c.forward(packet.SYN, "")
		losses["its index given to another"](c)
		before := c.counts()
		c.reply(packet.SYN|packet.ACK, "")
		c.forward(packet.ACK, "")
		wantOnlyEnds(t, before, c.counts())
		c.wantLive(1)
	})
}

func TestADrainingBackendKeepsItsFlows(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		c.setState(maps.Draining)
		next := c.succeed()
		c.goOn()
		c.age(c.forwardKey())
		c.goOn()
		next.wantConnections(0, 0)
	})
}

// The agent does so when there is no active one.
func TestADrainingBackendTakesNewFlowsIfTheTableNamesIt(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.setState(maps.Draining)
		c.begin()
		c.goOn()
		c.wantConnections(1, 0)
	})
}

func TestABackendIsCreditedWithItsPackets(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		before := c.counts()
		question, answer := strings.Repeat("q", 99), strings.Repeat("a", 201)
		c.forward(packet.ACK, question)
		c.reply(packet.ACK, answer)
		c.reply(packet.ACK, answer)
		want := before
		want.Packets++
		want.Bytes += layer3(t, c.spec(c.f.client, c.f.vip, packet.ACK, question))
		want.RxPackets += 2
		want.RxBytes += 2 * layer3(t, c.replyOf(packet.ACK, answer))
		if d := cmp.Diff(want, c.counts()); d != "" {
			t.Error(d)
		}
	})
}

// ethHeader is the length of an Ethernet header.
const ethHeader = 14

// layer3 is the length of an untagged frame, long enough not to be padded,
// without its Ethernet header.
func layer3(t *testing.T, s packet.Spec) uint64 {
	t.Helper()
	return uint64(len(frame(t, s)) - ethHeader)
}
