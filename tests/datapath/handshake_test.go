package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

func handshakes(c *conversation) (n uint64) {
	c.t.Helper()
	for _, bucket := range c.counts().Handshake {
		n += bucket
	}
	return n
}

// timed sends the SYN of a client whose handshake is timed, as some are.
func (c *conversation) timed() {
	c.t.Helper()
	for range 200 {
		c.forward(packet.SYN, "")
		key := c.reverseKey()
		if h, ok, err := c.r.Set.HalfOpen().Lookup(key); err != nil || !ok {
			c.t.Fatalf("look up handshake %v: %t, %v", key, ok, err)
		} else if h.Since != 0 {
			return
		}
		c.f, c.snat = withClient(c.f, c.f.client.Port()+1), 0
	}
	c.t.Fatal("none of 200 handshakes is timed")
}

// conversation.forward checks that each packet is translated as the first was.
func TestRetransmissionsDuringAHandshakeChangeNothing(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		c.timed()
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		c.wantNoFlow()
		c.forward(packet.ACK, "")
		c.forward(packet.ACK, "")
		c.reply(packet.SYN|packet.ACK, "") // the ACK was lost behind us
		c.goOn()
		c.wantFlags(0, 0)
		c.wantConnections(1, 0)
		if n := handshakes(c); n != 1 {
			t.Errorf("%d handshakes timed, want 1", n)
		}
	})
}

func TestTheClientsDataMayCompleteTheHandshake(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		c.forward(packet.PSH|packet.ACK, "the bare ACK was lost")
		c.wantConnections(1, 0)
		c.goOn()
	})
}

func TestAfterARefusedHandshakeTheNextSYNBeginsAnew(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.forward(packet.SYN, "")
		c.reply(packet.RST|packet.ACK, "")
		c.wantNoFlow()
		next := c.succeed()
		next.handshake()
		next.goOn()
		next.closeByFIN()
		c.wantConnections(0, 0)
		next.wantConnections(1, 1)
	})
}

func TestARefusedHandshakeMayBeTriedAgainWithTheSameBackend(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		for range 3 {
			c.forward(packet.SYN, "")
			c.reply(packet.RST|packet.ACK, "")
		}
		c.handshake()
		c.goOn()
		c.wantFlags(0, 0)
		c.wantConnections(1, 0)
	})
}

// The backend answers, then thinks better of it.
func TestAfterAHandshakeResetLateTheNextSYNBeginsAnew(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		c.reply(packet.RST|packet.ACK, "")
		next := c.succeed()
		next.handshake()
		next.goOn()
		next.wantFlags(0, 0)
		next.wantConnections(1, 0)
	})
}

// The client takes its SYN back.
func TestAClientsRSTDuringAHandshakeOpensNothing(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		c.forward(packet.RST, "")
		c.wantNoFlow()
		c.wantConnections(0, 0)
		c.handshake()
		c.wantConnections(1, 0)
	})
}

func TestABackendGoneDuringAHandshakeIsReplacedAtTheNextSYN(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConnection(t, r, func(c *conversation) {
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		c.setState(maps.Gone)
		next := c.succeed()
		next.handshake()
		next.goOn()
		c.wantConnections(0, 0)
		next.wantConnections(1, 0)
	})
}
