package datapath

import (
	"fmt"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

func TestFINInBothDirectionsClosesAConnectionOnce(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		c.wantConnections(0, 0)
		c.forward(packet.ACK, "")
		c.wantFlags(0, 0)
		c.wantConnections(1, 0)
		c.goOn()

		c.forward(packet.FIN|packet.ACK, "")
		c.wantFlags(maps.FlowFIN, maps.FlowPeerFIN)
		c.reply(packet.PSH|packet.ACK, "half-closed, still talking")
		c.wantConnections(1, 0)
		c.reply(packet.FIN|packet.ACK, "")
		c.wantState(closed)
		c.wantConnections(1, 1)

		c.forward(packet.ACK, "")
		c.reply(packet.FIN|packet.ACK, "") // retransmitted
		c.forward(packet.FIN|packet.ACK, "")
		c.wantState(closed)
		c.wantConnections(1, 1)
	})
}

func TestAnRSTOfEitherSideClosesAConnectionOnce(t *testing.T) {
	sides := map[string]func(c *conversation){
		"client":  func(c *conversation) { c.forward(packet.RST|packet.ACK, "") },
		"backend": func(c *conversation) { c.reply(packet.RST, "") },
	}
	t.Parallel()
	r := lend(t)
	for name, send := range sides {
		t.Run(name, func(t *testing.T) {
			everyConversation(t, r, maps.TCP, func(c *conversation) {
				c.handshake()
				c.goOn()
				send(c)
				c.wantState(closed)
				send(c) // retransmitted
				c.wantState(closed)
				c.wantConnections(1, 1)
			})
		})
	}
}

// closeWindow is CLOSE_WINDOW in bpf/flow/state.h.
const closeWindow = 8 << 20

// A FIN or RST of somebody who does not know the numbers is passed on for the
// other end to judge, and closes nothing here.
func TestABlindFINOrRSTClosesNothing(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for _, flags := range []packet.Flags{packet.RST, packet.RST | packet.ACK, packet.FIN | packet.ACK} {
		for name, off := range map[string]uint32{"before": ^uint32(1), "after": closeWindow, "far": 1 << 31} {
			t.Run(fmt.Sprintf("flags %#x %s the window", uint8(flags), name), func(t *testing.T) {
				everyConversation(t, r, maps.TCP, func(c *conversation) {
					c.handshake()
					c.goOn()
					blind := c.spec(c.f.client, c.f.vip, flags, "")
					blind.Seq += off
					c.forwardSpec(blind)
					blind = c.replyOf(flags, "")
					blind.Seq += off
					c.forward(packet.ACK, "") // the client acknowledges nothing new
					c.replySpec(blind)
					c.wantFlags(0, 0)
					c.wantConnections(1, 0)
				})
			})
		}
	}
}

// What the backend had to say by then may be under way, or lost. It takes two of
// them, so that a FIN is believed where an RST has to be exact.
func TestAFINAnywhereInTheWindowHalfCloses(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, off := range map[string]uint32{"one before": ^uint32(0), "as acknowledged": 0, "the last": closeWindow - 1} {
		t.Run(name, func(t *testing.T) {
			everyConversation(t, r, maps.TCP, func(c *conversation) {
				c.handshake()
				c.goOn()
				fin := c.spec(c.f.client, c.f.vip, packet.FIN|packet.ACK, "")
				fin.Seq += off
				c.forwardSpec(fin)
				c.wantState(established)
				c.wantFlags(maps.FlowFIN, maps.FlowPeerFIN)
				c.reply(packet.FIN|packet.ACK, "")
				c.wantState(closed)
				c.wantConnections(1, 1)
			})
		})
	}
}

// An RST that was believed but that its alleged sender knows nothing of.
func TestAConnectionThatGoesOnAfterAnRSTIsOpenAgain(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.handshake()
		c.goOn()
		c.forward(packet.RST|packet.ACK, "")
		c.reply(packet.PSH|packet.ACK, "sent before the RST came")
		c.wantConnections(1, 1)

		c.forward(packet.PSH|packet.ACK, "that was not me")
		c.wantFlags(0, 0)
		c.wantConnections(2, 1)
		c.goOn()
		c.wantConnections(2, 1)

		c.closeByFIN()
		c.wantConnections(2, 2)
	})
}

// One who goes on after his RST opens it again, whatever the other has said: that
// one's next RST closes it for good.
func TestAConnectionBothSidesHaveResetIsClosedByTheNextRST(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.handshake()
		c.goOn()
		c.forward(packet.RST|packet.ACK, "")
		c.reply(packet.RST, "")
		c.wantState(closed)
		c.wantConnections(1, 1)
		c.forward(packet.PSH|packet.ACK, "x")
		c.reply(packet.RST, "")
		c.wantState(closed)
		c.wantLive(0)
	})
}

func TestASYNOnAClosedConnectionBeginsANewOne(t *testing.T) {
	endings := map[string]func(c *conversation){
		"FIN":            func(c *conversation) { c.closeByFIN() },
		"client's RST":   func(c *conversation) { c.forward(packet.RST|packet.ACK, "") },
		"backend's RST":  func(c *conversation) { c.reply(packet.RST|packet.ACK, "") },
		"a gone backend": func(c *conversation) { c.setState(maps.Gone) },
	}
	t.Parallel()
	r := lend(t)
	for name, end := range endings {
		t.Run(name, func(t *testing.T) {
			everyConversation(t, r, maps.TCP, func(c *conversation) {
				c.handshake()
				c.goOn()
				end(c)
				next := c.succeed()
				next.handshake()
				if _, ok := c.lookup(c.reverseKey()); ok {
					t.Error("the old connection's reverse half is still there")
				}
				next.goOn()
				next.wantConnections(1, 0)
			})
		})
	}
}

// The backend answers it with a challenge ACK (RFC 5961, section 4).
func TestASYNOnALiveConnectionGoesToItsBackend(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.handshake()
		c.goOn()
		next := c.succeed()
		c.forward(packet.SYN, "")
		c.reply(packet.ACK, "")
		c.goOn()
		c.wantFlags(0, 0)
		c.wantConnections(1, 0)
		next.wantConnections(0, 0)
	})
}
